"""Declining: a worker whose code lacks the actor lets the store find one that has it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from dramatiq import Broker

from relier.envelope import stamp_of
from relier.sending import sending_of
from relier.settings import Settings
from relier.store import Store

if TYPE_CHECKING:
    from relier.process import WorkerProcess

logger = logging.getLogger(__name__)

#: How often (s) one actor is warned of.
WARNING_INTERVAL = 10.0

_warned: dict[str, float] = {}


def declined(store: Store, broker: Broker, message: Any, settings: Settings) -> bool:
    """Let the store take a copy whose actor this process lacks; it is published to somebody who has it, or held.

    False: the copy is void, since this worker was declared dead. Raises what the store raises.
    """
    stamp = stamp_of(message)
    sending = sending_of(broker, message, stamp, settings)
    process: WorkerProcess | None = broker.__dict__["relier_installation"].process
    worker = process.identity if process is not None else ""
    taken = store.tasks.decline(worker, sending, stamp.fence)
    if not taken and process is not None:
        process.refence(worker)
    _warn(message.actor_name, sending.queue, stamp.task_id)
    return taken


def _warn(actor: str, queue: str, task_id: str) -> None:
    now = time.monotonic()
    if now - _warned.get(actor, -WARNING_INTERVAL) >= WARNING_INTERVAL:
        _warned[actor] = now
        text = "Received unregistered task of type '%s'"
        logger.warning(text, actor, extra={"task": task_id, "queue": queue})
