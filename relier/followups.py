"""Enqueues what follows a task, under ids derived from the task's, so that a replay doubles nothing (R7)."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, Message
from dramatiq.common import q_name

from relier import failpoints
from relier.admission import admission_of
from relier.arrivals import arrived_signed
from relier.envelope import Stamp, keeping_stamps, stamp_follow_up, stamp_of, version_of
from relier.errors import UnsignableError
from relier.hooks import encode_failure, text_of
from relier.idempotency import key_of_follow_up
from relier.integrity import Integrity
from relier.job_keys import job_of_follow_up
from relier.objectives import note_delay
from relier.runs import Run
from relier.sending import enqueued_ms, payload_version, sending_of

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
    run: Run,
    *,
    parent: Stamp | None = None,
    delay: int | None = None,
    version: int | None = None,
) -> None:
    """Enqueue what follows from a run; when the broker refuses, the store takes it and publishes it later.

    It is sealed only if the run's own message was. `parent` is what its id is derived from when that is not the run's
    task, `delay` is in ms, `version` that of its payload: by default what the first message's producer put into it.
    """
    version = version_of(message) if version is None else version
    key, job = key_of_follow_up(broker, message), job_of_follow_up(broker, message)
    vouched, when = arrived_signed(run.message), enqueued_ms(broker)
    stamped = stamp_follow_up(message, parent or run.stamp, version, key, job=job, fresh=vouched, enqueued_ms=when)
    note_delay(broker, stamped, delay)
    if (admission := admission_of(broker)) is not None:
        admission.note(stamped)
    try:
        failpoints.hit("before-follow-up")
        with keeping_stamps():
            broker.enqueue(stamped, delay=delay)
    except UnsignableError as error:
        _keep_unsignable(broker, process, stamped, error)
    except Exception as error:
        logger.warning("A follow-up could not be enqueued; the store takes it.", extra={"error": type(error).__name__})
        Integrity.of(process.settings).seal(stamped)
        sending = sending_of(broker, stamped, stamp_of(stamped), process.settings)
        process.patiently(lambda: process.store.tasks.schedule(sending, (delay or 0) / 1000))


def _keep_unsignable(broker: Broker, process: WorkerProcess, message: Message[Any], error: UnsignableError) -> None:
    """Keep a follow-up that cannot be signed as a dead letter: unsigned it would be refused, and here nobody hears."""
    logger.error("A follow-up cannot be signed; it is a dead letter.", extra={"actor": message.actor_name})
    sending, failure = sending_of(broker, message, stamp_of(message), process.settings), encode_failure(error)
    process.patiently(lambda: process.store.tasks.dead_letter(sending, type(error).__name__, failure))


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
    enqueue_follow_up(broker, process, callback, run, version=payload_version(broker, target_name))


def described(error: BaseException) -> dict[str, str]:
    """Describe a failure as Dramatiq does for `on_failure`."""
    return {"type": type(error).__name__, "message": text_of(error)}
