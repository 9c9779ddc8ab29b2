"""Keeps as dead letters what a worker cannot even claim: the broker's own dead-letter queue stays empty."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from dramatiq import Broker
from dramatiq.common import q_name

from relier.envelope import stamp_of
from relier.errors import PayloadIntegrityError
from relier.hooks import encode_failure
from relier.integrity import covered
from relier.sending import bytes_of, sending_of
from relier.settings import Settings
from relier.store import Sending, Store, shard_of

logger = logging.getLogger(__name__)

#: The reason of dead letters whose bytes are not what a producer sent.
REASON = PayloadIntegrityError.__name__


def keep_rejected(store: Store, broker: Broker, message: Any, settings: Settings) -> None:
    """Keep a rejected message as a dead letter; returns when the store has it. Raises what the store raises."""
    error = message._exception or RuntimeError("The message was rejected.")
    stamp = stamp_of(message)
    sending = sending_of(broker, message, stamp, settings)
    store.tasks.dead_letter(sending, type(error).__name__, encode_failure(error), stamp.fence)


def keep_refused(store: Store, message: Any, error: PayloadIntegrityError) -> None:
    """Keep a message that is not what a producer sent as a dead letter. Raises what the store raises."""
    letter, failure = refused(message, bytes_of(message), error)
    store.tasks.dead_letter(letter, REASON, failure)


def refused(message: Any, raw: bytes, error: PayloadIntegrityError) -> tuple[Sending, bytes]:
    """Return the dead letter of a message that is not what a producer sent, and its failure.

    Its id is derived from its bytes, the same for every copy of them: whatever task the message claims to be, that
    task's record is left alone. Nor is the letter one of the actor or the queue that the message names.
    """
    task_id = f"raw-{hashlib.sha256(_fingerprint(message, raw)).hexdigest()[:32]}"
    queue = q_name(str(message.queue_name))
    claim = f"It claims to be task {str(message.message_id)[:64]!r} of actor {str(message.actor_name)[:64]!r}."
    logger.error(
        "A message failed its integrity check; it is kept as a dead letter.",
        extra={"task": task_id, "queue": queue, "error": str(error)},
    )
    return Sending(task_id, shard_of(task_id), queue, "", raw), encode_failure(
        PayloadIntegrityError(f"{error} {claim}")
    )


def _fingerprint(message: Any, raw: bytes) -> bytes:
    try:
        return covered(message)
    except (ValueError, KeyError, TypeError, AttributeError):
        return raw


def keep_undecodable(store: Store, queue: str, data: Any, error: BaseException) -> None:
    """Keep bytes that cannot be decoded as a dead letter, the same one for each delivery of them."""
    raw = data if isinstance(data, bytes) else str(data).encode("utf-8", "surrogateescape")
    task_id = f"raw-{hashlib.sha256(raw).hexdigest()[:32]}"
    sending = Sending(task_id, shard_of(task_id), q_name(queue), "", raw)
    store.tasks.dead_letter(sending, REASON, encode_failure(error))
