"""Commits that go out together with the next claim of their thread, in one round trip."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

import redis
from dramatiq import Broker

from relier import failpoints
from relier.brokers.delivery import Delivery
from relier.brokers.lanes import give_back
from relier.errors import RunUnknownError
from relier.runs import Phase, Run
from relier.store import Commit
from relier.store.connection import UNAVAILABLE

if TYPE_CHECKING:
    from relier.process import WorkerProcess

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Hooks of a message that see a task as ended. Dramatiq's own do nothing with one that has no follow-ups.
_HOOKS = ("before_process_message", "after_process_message", "before_ack", "after_ack")


class DeferredCommit:
    """A run that is done and whose commit is not answered: for the store and for everybody else it still runs.

    A crash in this state is a crash before the commit. Its copy's acknowledgement waits for the answer.
    """

    __slots__ = ("_acknowledge", "answered", "commit", "old", "run", "thread")

    def __init__(self, run: Run, commit: Commit) -> None:
        self.run = run
        self.commit = commit
        self.thread = get_ident()
        self.answered = False
        #: Whether it was there at an earlier beat.
        self.old = False
        self._acknowledge: Callable[[Any], None] | None = None

    def acknowledge_then(self, acknowledge: Callable[[Any], None]) -> bool:
        """Have `acknowledge` called with the copy once the commit is answered. False: it is already."""
        self._acknowledge = acknowledge
        return not self.answered

    def answer(self) -> None:
        """Let the copy be acknowledged."""
        self.answered = True  # Before the look: at worst a copy is acknowledged twice.
        if self._acknowledge is not None:
            self._acknowledge(self.run.message)


class DeferredCommits:
    """The commits that one process's threads have put aside, at most one a thread.

    It is sent with the thread's next claim, so user code never runs while one of its thread is unsent; or by `flush`,
    before the thread waits for anything.
    """

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self._waiting: dict[int, DeferredCommit] = {}
        #: Threads that have put one aside since they last came to see to it, and are in their quarters for so long.
        self._owing: set[int] = set()
        self._middleware: list[Any] = []
        self._nobody_looks = False

    def __len__(self) -> int:
        return len(self._waiting)

    def may_wait(self, broker: Broker, run: Run) -> bool:
        """Whether a run's commit may be put aside.

        Nobody's hooks act on its end, its crash would be its first, and this worker goes on to another task.
        """
        if broker.middleware != self._middleware:
            self._middleware = list(broker.middleware)
            self._nobody_looks = not any(_looks(middleware) for middleware in self._middleware)
        ordinary = isinstance(run.message, Delivery) and not (run.crashes or run.stamp.suspicion)
        return self._nobody_looks and ordinary and not self._process.state

    def put(self, run: Run, commit: Commit) -> None:
        """Put the calling thread's commit aside."""
        deferred = DeferredCommit(run, commit)
        run.message.deferred = deferred
        self._waiting[deferred.thread] = deferred
        self._owing.add(deferred.thread)

    def waits(self) -> bool:
        """Whether the calling thread has put a commit aside that is not sent."""
        return get_ident() in self._waiting

    def owes(self) -> bool:
        """Whether the calling thread is to `flush`: it has put a commit aside, which others may have sent since."""
        return get_ident() in self._owing

    def take_along(self, send: Callable[[Commit | None], T]) -> T:
        """Return what `send` returns, which takes the calling thread's commit along. May be repeated when it raises."""
        deferred = self._waiting.get(get_ident())
        return send(None) if deferred is None else self._close(deferred, send)

    def flush(self) -> None:
        """Send the calling thread's commit, if there is one, see to its answer, and leave the quarters. Never raises.

        To be called before the thread waits for anything else.
        """
        me = get_ident()
        if me not in self._owing:
            return
        if (deferred := self._waiting.get(me)) is not None:
            try:
                self._process.patiently(partial(self._close, deferred, _alone))
            except Exception:  # This process is stopping without a store: somebody else will run the task again.
                logger.debug("A commit could not be sent.", exc_info=True)
        self._process.quarters.leave()
        if me not in self._waiting:
            self._owing.discard(me)

    def flush_all(self, only_old: bool = False) -> None:
        """Send every thread's commit; raises when the store is away. `only_old`: those that were there the last time.

        A thread sees to its own. This is for threads that do not come to it: paused ones, or when the process ends.
        """
        for deferred in list(self._waiting.values()):
            if (deferred.old or not only_old) and not deferred.run.lock.locked():
                self._close(deferred, _alone)
            deferred.old = True

    def _close(self, deferred: DeferredCommit, send: Callable[[Commit | None], T]) -> T:
        run = deferred.run
        with run.lock:
            ours = run.phase is Phase.RUNNING
            answer = send(deferred.commit if ours else None)
            if ours:
                self._conclude(deferred)
        self._answered(deferred, ours)
        return answer

    def _conclude(self, deferred: DeferredCommit) -> None:
        run = deferred.run
        try:
            run.phase = Phase.CLOSED if deferred.commit.verdict() else Phase.LOST
        except RunUnknownError:
            logger.warning("The store lost a run; its copy goes back.", extra={"task": run.task_id})
            run.phase = Phase.LOST
            give_back(run.message)
        except UNAVAILABLE:
            raise
        except redis.ResponseError:
            logger.exception("A commit failed.")

    def _answered(self, deferred: DeferredCommit, ours: bool) -> None:
        run = deferred.run
        if run.phase is Phase.CLOSED and ours:
            run.settles = True
            run.trace_end("completed")
            failpoints.hit("committed")
        elif run.phase is Phase.RUNNING:
            self._give_away(run)
        elif run.phase is Phase.LOST and not deferred.answered:
            logger.warning("A run came too late: its task has moved on.", extra={"task": run.task_id})
            run.trace_end("lost")
            self._process.runs.remove(run)
        deferred.answer()
        if self._waiting.get(deferred.thread) is deferred:  # Last: whatever an interrupt cuts short is seen to again.
            del self._waiting[deferred.thread]

    def _give_away(self, run: Run) -> None:
        logger.error("A run was not closed; its task is given back.", extra={"task": run.task_id})
        try:
            self._process.hand_over(run, "not closed")
        except Exception:
            logger.exception("A run could not be given back.")


def _alone(commit: Commit | None) -> None:
    if commit is not None:
        commit.send()


def _looks(middleware: Any) -> bool:
    """Whether a middleware that is neither Dramatiq's nor ours has a hook that would see a task before its commit."""
    hooks = (getattr(type(middleware), name, None) for name in _HOOKS)
    return any(getattr(hook, "__module__", "").partition(".")[0] not in ("dramatiq", "relier") for hook in hooks)
