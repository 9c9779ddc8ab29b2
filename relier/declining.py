"""Declining: a worker whose code lacks the actor, or is older than the payload, leaves the task to another."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dramatiq import Broker

from relier.envelope import stamp_of, version_of
from relier.seldom import Seldom
from relier.sending import payload_version, sending_of
from relier.settings import Settings
from relier.store import Sending, Store

if TYPE_CHECKING:
    from relier.process import WorkerProcess

logger = logging.getLogger(__name__)

#: How often (s) one actor is warned of.
WARNING_INTERVAL = 10.0

_seldom = Seldom(WARNING_INTERVAL)


def is_newer(broker: Broker, message: Any) -> bool:
    """Whether a message's payload is newer than this process's code of its actor."""
    version = version_of(message)
    return version > 1 and version > payload_version(broker, message.actor_name)


def declined(store: Store, broker: Broker, message: Any, settings: Settings) -> bool:
    """Let the store take a copy that this process cannot run; it is published to somebody who can, or held.

    False: the copy is void, since this worker was declared dead. Raises what the store raises.
    """
    stamp = stamp_of(message)
    sending = sending_of(broker, message, stamp, settings)
    process: WorkerProcess | None = broker.__dict__["relier_installation"].process
    worker = process.identity if process is not None else ""
    taken = store.tasks.decline(worker, sending, stamp.fence)
    if not taken and process is not None:
        process.refence(worker)
    _warn(broker, sending)
    return taken


def _warn(broker: Broker, sending: Sending) -> None:
    """Warn of an actor that is missing, or of a version that is, once an interval."""
    actor = broker.actors.get(sending.actor)
    if not _seldom.may_say(sending.actor, 0 if actor is None else sending.payload_version):
        return
    extra: dict[str, Any] = {"task": sending.task_id, "queue": sending.queue}
    if actor is None:
        logger.warning("Received unregistered task of type '%s'", sending.actor, extra=extra)
    else:
        extra |= {"version": sending.payload_version, "known": payload_version(broker, sending.actor)}
        logger.warning("Received a task of '%s' that is newer than this worker's code.", sending.actor, extra=extra)
