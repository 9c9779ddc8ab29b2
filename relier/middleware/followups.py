"""Follow-ups of a task: callbacks, pipeline stages, group completions.

They replace Dramatiq's middlewares of the same names, so that a crash between a task's commit and its hooks loses none
and a replay doubles none (R7): follow-ups have ids derived from the task's, and a group counts members, not decrements.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, Message
from dramatiq.broker import MessageProxy
from dramatiq.common import q_name
from dramatiq.middleware import callbacks, group_callbacks, pipelines
from dramatiq.rate_limits import RateLimiterBackend

from relier import failpoints
from relier.envelope import Stamp, stamp_follow_up, stamp_of
from relier.lifecycle import run_of
from relier.runs import Run
from relier.sending import payload_version, sending_of

if TYPE_CHECKING:
    from relier.installation import Installation
    from relier.process import WorkerProcess

logger = logging.getLogger(__name__)

#: Namespace of derived message ids.
_DERIVED = uuid.UUID("6f0e4e0c-7f8f-4c55-9d2c-3f0b0c1a52d1")


def derived_id(task_id: str, hook: str) -> str:
    """Return the message id of a task's follow-up; the same at every replay."""
    return str(uuid.uuid5(_DERIVED, f"{task_id}/{hook}"))


def enqueue_follow_up(
    broker: Broker, process: WorkerProcess, message: Message[Any], parent: Stamp, delay: int | None = None
) -> None:
    """Enqueue a follow-up; when the broker refuses, the store takes it and publishes it later. `delay` is in ms."""
    stamped = stamp_follow_up(message, parent, payload_version(broker, message.actor_name))
    try:
        failpoints.hit("before-follow-up")
        broker.enqueue(stamped, delay=delay)
    except Exception as error:
        logger.warning("A follow-up could not be enqueued; the store takes it.", extra={"error": type(error).__name__})
        sending = sending_of(broker, stamped, stamp_of(stamped), process.settings)
        process.patiently(lambda: process.store.tasks.schedule(sending, (delay or 0) / 1000))


class _FollowUps:
    """What the replaced middlewares share."""

    installation: Installation

    def _run(self, message: MessageProxy) -> tuple[WorkerProcess, Run] | None:
        run, process = run_of(message), self.installation.process
        return (process, run) if run is not None and process is not None else None


class Callbacks(_FollowUps, callbacks.Callbacks):
    """Dramatiq's `on_success` and `on_failure`; also `on_retry_exhausted`, since `Retries` is replaced."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        found = self._run(message)
        if found is None:
            return
        process, run = found
        if exception is None:
            _send(broker, process, run, "on_success", result)
        elif run.final_failure:
            _send(broker, process, run, "on_failure", _described(exception))
            _send_exhausted(broker, process, run)


def send_failure_callback(broker: Broker, process: WorkerProcess, run: Run, error: BaseException) -> None:
    """Send `on_failure` for a failure that will be retried, as Dramatiq does for each one."""
    try:
        _send(broker, process, run, "on_failure", _described(error), hook=f"on_failure/{run.fence}")
    except Exception:  # An unknown actor, arguments that cannot be encoded: the task's own failure comes first.
        logger.exception("The on_failure callback could not be sent.")


def _send_exhausted(broker: Broker, process: WorkerProcess, run: Run) -> None:
    counts = {"retries": run.attempt, "max_retries": run.attempt}
    if run.exhausted:
        _send(broker, process, run, "on_retry_exhausted", counts)


def _send(broker: Broker, process: WorkerProcess, run: Run, option: str, detail: Any, *, hook: str = "") -> None:
    message = run.message
    actor = broker.get_actor(message.actor_name)
    target_name = message.options.get(option) or actor.options.get(option)
    if not target_name:
        return
    target = broker.get_actor(target_name)
    described = {**message.asdict(), "queue_name": q_name(message.queue_name)}
    callback = target.message_with_options(args=(described, detail))
    callback = Message(**{**callback.asdict(), "message_id": derived_id(run.task_id, hook or option)})
    enqueue_follow_up(broker, process, callback, run.stamp)


def _described(error: BaseException) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error)}


class Pipelines(_FollowUps, pipelines.Pipelines):
    """Dramatiq's pipelines: `pipe_target` gets the result unless `pipe_ignore` is set."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        found, target = self._run(message), message.options.get("pipe_target")
        if found is None or exception is not None or message.failed or target is None:
            return
        process, run = found
        following: Message[Any] = Message(**target)
        actor = broker.get_actor(message.actor_name)
        if not (following.options.get("pipe_ignore") or actor.options.get("pipe_ignore")):
            following = following.copy(args=(*following.args, result))
        enqueue_follow_up(broker, process, following, run.stamp, following.options.get("delay"))


class GroupCallbacks(_FollowUps, group_callbacks.GroupCallbacks):
    """Dramatiq's completion callbacks of groups, counted in the store.

    Parameters:
      barrier_ttl(int): How long, in milliseconds, a group may take. Defaults to one day.
    """

    def __init__(self, installation: Installation, *, barrier_ttl: int = 86_400_000) -> None:
        super().__init__(_GroupSizes(installation), barrier_ttl=barrier_ttl)
        self.installation = installation

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        found, group_id = self._run(message), message.options.get("group_completion_uuid")
        callbacks_ = message.options.get("group_completion_callbacks")
        if found is None or exception is not None or not (group_id and callbacks_):
            return
        process, run = found
        tasks, ttl = process.store.tasks, self.barrier_ttl
        done, size = process.patiently(lambda: tasks.group_join(group_id, run.task_id, ttl))
        if size < 0:
            logger.warning("A group is unknown or older than its barrier_ttl.", extra={"group": group_id})
        elif done >= size:
            parent = Stamp(f"{group_id}~{group_id[:8]}", 0)  # Callbacks of one group run are its own tasks.
            for fields in callbacks_:
                enqueue_follow_up(broker, process, Message(**fields), parent)


class _GroupSizes(RateLimiterBackend):
    """What `group.run()` creates its barrier on: it only tells the store how many members there are."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    def add(self, key: str, value: int, ttl: int) -> bool:
        self._installation.store.tasks.group_create(key, value, ttl)
        return True
