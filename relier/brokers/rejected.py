"""Keeps as dead letters what a worker cannot even claim: the broker's own dead-letter queue stays empty."""

from __future__ import annotations

import hashlib
from typing import Any

from dramatiq import Broker
from dramatiq.common import q_name

from relier.envelope import stamp_of
from relier.hooks import encode_failure
from relier.sending import sending_of
from relier.settings import Settings
from relier.store import Sending, Store, shard_of


def keep_rejected(store: Store, broker: Broker, message: Any, settings: Settings) -> None:
    """Keep a rejected message as a dead letter; returns when the store has it. Raises what the store raises."""
    error = message._exception or RuntimeError("The message was rejected.")
    stamp = stamp_of(message)
    sending = sending_of(broker, message, stamp, settings)
    store.tasks.dead_letter(sending, type(error).__name__, encode_failure(error), stamp.fence)


def keep_undecodable(store: Store, queue: str, data: Any, error: BaseException) -> None:
    """Keep bytes that cannot be decoded as a dead letter, the same one for each delivery of them."""
    raw = data if isinstance(data, bytes) else str(data).encode("utf-8", "surrogateescape")
    task_id = f"raw-{hashlib.sha256(raw).hexdigest()[:32]}"
    sending = Sending(task_id, shard_of(task_id), q_name(queue), "", raw)
    store.tasks.dead_letter(sending, "PayloadIntegrityError", encode_failure(error))
