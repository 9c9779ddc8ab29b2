"""Follow-ups of a task: callbacks, pipeline stages, group completions.

They replace Dramatiq's middlewares of the same names, so that a crash between a task's commit and its hooks loses none
and a replay doubles none (R7): follow-ups have ids derived from the task's, and a group counts members, not decrements.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, Message
from dramatiq.broker import MessageProxy
from dramatiq.middleware import callbacks, group_callbacks, pipelines
from dramatiq.rate_limits import RateLimiterBackend

from relier.envelope import Stamp
from relier.followups import described, enqueue_follow_up, send_callback, send_exhausted
from relier.lifecycle import run_of
from relier.runs import Run

if TYPE_CHECKING:
    from relier.installation import Installation
    from relier.process import WorkerProcess

logger = logging.getLogger(__name__)


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
            send_callback(broker, process, run, "on_success", result)
        elif run.final_failure:
            if not run.failure_told:
                send_callback(broker, process, run, "on_failure", described(exception))
            send_exhausted(broker, process, run)


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
        enqueue_follow_up(broker, process, following, run, delay=following.options.get("delay"))


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
                enqueue_follow_up(broker, process, Message(**fields), run, parent=parent)


class _GroupSizes(RateLimiterBackend):
    """What `group.run()` creates its barrier on: it only tells the store how many members there are."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation

    def add(self, key: str, value: int, ttl: int) -> bool:
        self._installation.store.tasks.group_create(key, value, ttl)
        return True
