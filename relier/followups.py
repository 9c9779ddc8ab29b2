"""Enqueues what follows a task, under ids derived from the task's, so that a replay doubles nothing (R7)."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, Message
from dramatiq.common import q_name

from relier import failpoints
from relier.admission import admission_of
from relier.envelope import Stamp, keeping_stamps, stamp_follow_up, stamp_of, version_of
from relier.idempotency import key_of_follow_up
from relier.runs import Run
from relier.sending import payload_version, sending_of

if TYPE_CHECKING:
    from relier.process import WorkerProcess

logger = logging.getLogger(__name__)

#: Namespace of derived message ids.
_DERIVED = uuid.UUID("6f0e4e0c-7f8f-4c55-9d2c-3f0b0c1a52d1")


def derived_id(task_id: str, hook: str) -> str:
    """Return the message id of a task's follow-up; the same at every replay."""
    return str(uuid.uuid5(_DERIVED, f"{task_id}/{hook}"))


def enqueue_follow_up(
    broker: Broker,
    process: WorkerProcess,
    message: Message[Any],
    parent: Stamp,
    *,
    delay: int | None = None,
    version: int | None = None,
) -> None:
    """Enqueue a follow-up; when the broker refuses, the store takes it and publishes it later. `delay` is in ms.

    `version` is that of its payload; by default what the producer of the first message has put into it.
    """
    key = key_of_follow_up(broker, message)
    stamped = stamp_follow_up(message, parent, version_of(message) if version is None else version, key)
    if (admission := admission_of(broker)) is not None:
        admission.note(stamped)
    try:
        failpoints.hit("before-follow-up")
        with keeping_stamps():
            broker.enqueue(stamped, delay=delay)
    except Exception as error:
        logger.warning("A follow-up could not be enqueued; the store takes it.", extra={"error": type(error).__name__})
        sending = sending_of(broker, stamped, stamp_of(stamped), process.settings)
        process.patiently(lambda: process.store.tasks.schedule(sending, (delay or 0) / 1000))


def send_failure_callback(broker: Broker, process: WorkerProcess, run: Run, error: BaseException) -> None:
    """Send `on_failure` for a failure that will be retried, as Dramatiq does for each one."""
    try:
        send_callback(broker, process, run, "on_failure", described(error), hook=f"on_failure/{run.fence}")
    except Exception:  # An unknown actor, arguments that cannot be encoded: the task's own failure comes first.
        logger.exception("The on_failure callback could not be sent.")


def send_exhausted(broker: Broker, process: WorkerProcess, run: Run) -> None:
    """Send `on_retry_exhausted` for a task that failed for good without having asked for it."""
    counts = {"retries": run.attempt, "max_retries": run.attempt}
    if run.exhausted:
        send_callback(broker, process, run, "on_retry_exhausted", counts)


def send_callback(
    broker: Broker, process: WorkerProcess, run: Run, option: str, detail: Any, *, hook: str = ""
) -> None:
    message = run.message
    actor = broker.get_actor(message.actor_name)
    target_name = message.options.get(option) or actor.options.get(option)
    if not target_name:
        return
    target = broker.get_actor(target_name)
    described = {**message.asdict(), "queue_name": q_name(message.queue_name)}
    callback = target.message_with_options(args=(described, detail))
    callback = Message(**{**callback.asdict(), "message_id": derived_id(run.task_id, hook or option)})
    enqueue_follow_up(broker, process, callback, run.stamp, version=payload_version(broker, target_name))


def described(error: BaseException) -> dict[str, str]:
    """Describe a failure as Dramatiq does for `on_failure`."""
    return {"type": type(error).__name__, "message": str(error)}
