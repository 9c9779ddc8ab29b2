"""Runs an actor's coroutine: it ends by itself, by its limits, or on request, and that is decided once."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from time import monotonic
from typing import Any, NoReturn

import dramatiq.asyncio
from dramatiq.threading import Interrupt

from relier.event_loops import EventLoops, Place
from relier.runs import Run
from relier.soft_timeout import SoftTimeout
from relier.stacks import stack_of
from relier.timeouts import Limits

logger = logging.getLogger(__name__)

#: How often (s) the waiting thread wakes, so that Dramatiq's interrupts reach it.
WAKE_INTERVAL = 0.1

#: Looks (1 s) that a cancelled coroutine has for its clean-up before its thread goes on without it. Counted, not timed:
#: while the process is suspended nobody looks, and its event loop does nothing either.
LOOKS_FOR_CLEANUP = 10

#: After so many looks (5 s) a coroutine that its event loop does not begin goes to a fresh one.
LOOKS_BEFORE_MOVE = 50


class RunCancelled(Exception):
    """The run was cancelled from outside; the store decided about its task before."""


class LoopBlocked(Exception):
    """Another task blocks the event loop, so this one cannot go on here."""


class CoroutineRun:
    """One coroutine on an event loop of the process, waited for by a worker thread.

    Its deadlines cost neither thread nor timer: the waiting thread looks at the monotonic clock. Whether the coroutine
    ended or was given up is decided under its lock, once.

    Parameters:
      start: returns the coroutine; called on the event loop.
      loops: those of the process.
      limits: how long it may take from its beginning.
      run: whose code it is.
    """

    def __init__(
        self, start: Callable[[], Coroutine[Any, Any, Any]], loops: EventLoops, limits: Limits, run: Run
    ) -> None:
        self.run = run
        self._start = start
        self._loops = loops
        self._limits = limits
        self._context = copy_context()
        self._lock = threading.Lock()
        #: Set when the coroutine is over, or will never begin.
        self._over = threading.Event()
        self._soft = SoftTimeout(limits, run, self._over.is_set)
        self._result: Any = None
        self._error: BaseException | None = None
        #: Why it was given up before it was over; from then on its end changes nothing.
        self._verdict: BaseException | None = None
        self._task: asyncio.Task[Any] | None = None
        self._began_at: float | None = None
        self._is_cancelled = False
        #: Whether the loop took note of the cancellation; else it is blocked.
        self._heard = False
        #: Whether it is this one that blocks it.
        self._blocks = False
        self._looks = 0
        self._place: Place = loops.enter(self)

    # -- in the worker thread -----------------------------------------------------------------------------------

    def wait(self) -> Any:
        """Run the coroutine and return its result, or raise its error.

        Raises `RunCancelled` after `cancel`, the error of its limits when it took too long, and `LoopBlocked` when it
        cannot go on because of another one.
        """
        try:
            self._call_on_loop(self._begin, self._place)
            self._wait()
        finally:
            if not self.is_left_behind:
                self._loops.leave(self._place, self)
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # or the traceback and this frame hold each other
        return self._result

    def _wait(self) -> None:
        """Return when the coroutine is over; raise when it is given up."""
        try:
            while not self._over.wait(self._pause()):
                self._look()
        except Interrupt as interrupt:
            if interrupt is self._verdict:  # Ours, not Dramatiq's.
                raise
            self._give_up(interrupt, asked=True)
            if isinstance(self._error, RunCancelled):
                raise

    def _pause(self) -> float:
        if self._began_at is None or self._is_cancelled:
            return WAKE_INTERVAL
        left = self._began_at + min(self._limits.hard, self._soft.at) - monotonic()
        return min(WAKE_INTERVAL, max(0.0, left))

    def _look(self) -> None:
        """Do what the time asks for."""
        now = monotonic()
        if self._verdict is not None:
            self.cancel()
            raise self._verdict
        if self._is_cancelled:
            self._give_up(RunCancelled("the run was cancelled"), asked=True)
        elif self._began_at is None:
            self._looks += 1
            if self._looks % LOOKS_BEFORE_MOVE == 0:
                self._loops.replace(self._place)
        elif now >= self._began_at + self._limits.hard:
            self._give_up(self._limits.exceeded(self.run.actor_name))
        elif now >= self._began_at + self._soft.at:
            self._soft.pass_(self._place.loop, self._context)

    def _give_up(self, why: BaseException, *, asked: bool = False) -> None:
        """Cancel the coroutine, let it clean up, and raise; returns when its own end counts.

        `asked`: it is asked to stop, so its own end counts as long as it comes before its clean-up must be over.
        """
        if not asked and not self._decide(why):
            return
        self.cancel()
        is_over = self._cleans_up()
        if asked and not self._decide(why):
            return
        if not is_over and not self._heard and self._began_at is not None:
            self._raise_blocked(why)
        raise why

    def _cleans_up(self) -> bool:
        """Give the coroutine its time for clean-up; returns whether it is over.

        A loop that has not heard of it although nobody's code holds it is slow, and its time does not count.
        """
        looks = 0
        for _ in range(LOOKS_BEFORE_MOVE):
            if self._over.wait(WAKE_INTERVAL):
                return True
            is_slow = not self._heard and self._began_at is not None and self._place.blocker() is None
            looks += not is_slow
            if looks == LOOKS_FOR_CLEANUP:
                return False
        return False

    def _decide(self, why: BaseException) -> bool:
        """Let nothing count that the coroutine does from now on. False: it is over."""
        with self._lock:
            if not self._over.is_set():
                self._verdict = self._verdict or why
            return not self._over.is_set()

    def _raise_blocked(self, why: BaseException) -> NoReturn:
        """Tell who blocks the event loop: who only stands behind another one is not to blame."""
        self._blocks = self._place.blocker() in (None, self.run)
        if self._blocks:
            raise why
        self._loops.replace(self._place)
        if isinstance(why, RunCancelled | Interrupt):
            raise why
        raise LoopBlocked("another task blocks the event loop") from why

    @property
    def is_left_behind(self) -> bool:
        """Whether it was given up after it had begun, and is not over."""
        return self._verdict is not None and self._began_at is not None and not self._over.is_set()

    def leave_behind(self) -> None:
        """Tell where a coroutine is that was given up, and let others go on. Only after the store has decided."""
        self._loops.leave_behind(self._place, self)
        extra = {"task": self.run.task_id, "actor": self.run.actor_name}
        if self._blocks and not self._heard:
            stack = self._place.stack()
            logger.error(
                "A coroutine blocks the event loop; it cannot commit any more.", extra={**extra, "stack": stack}
            )
            self._loops.give_up(self._place)
        elif self._heard:
            stack = stack_of(self._task)
            logger.error(
                "A cancelled coroutine does not end; it cannot commit any more.", extra={**extra, "stack": stack}
            )
        if self._over.is_set():  # at this very moment
            self._loops.ended(self._place, self)

    # -- in any thread ------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Ask the coroutine to stop; returns at once, also before it began."""
        with self._lock:  # It begins before, or never.
            self._is_cancelled = True
        self._call_on_loop(self._cancel_on_loop)

    def move(self, place: Place) -> bool:
        """Begin in another place. False: too late."""
        with self._lock:
            if self._began_at is not None or self._verdict is not None or self._over.is_set():
                return False
            self._place = place
        self._call_on_loop(self._begin, place)
        return True

    def strand(self) -> None:
        """Give it up where it is: its loop does not go on."""
        with self._lock:
            if self._verdict is None and not self._over.is_set():
                self._verdict = LoopBlocked("another task blocked the event loop")

    def _call_on_loop(self, call: Callable[..., None], *args: Any) -> None:
        self._place.loop.call_soon_threadsafe(call, *args)

    # -- on the event loop --------------------------------------------------------------------------------------

    def _begin(self, place: Place) -> None:
        with self._lock:
            if place is not self._place or self._verdict is not None:
                return
            if not self._is_cancelled:
                self._began_at = monotonic()
                self._task = place.loop.create_task(self._drive(), context=self._context)
                return
        self._finish(None, RunCancelled("the run was cancelled"))

    async def _drive(self) -> None:
        try:
            result = await self._start()
        except asyncio.CancelledError as error:  # Nobody else may cancel it; if it does so itself, it failed.
            self._finish(None, RunCancelled("the run was cancelled") if self._is_cancelled else error)
        except BaseException as error:  # Also what would end the loop's thread.
            self._finish(None, error)
        else:
            self._finish(result, None)

    def _finish(self, result: Any, error: BaseException | None) -> None:
        with self._lock:
            if self._verdict is None:
                self._result, self._error = result, error
            self._over.set()
        if self._verdict is not None:
            self._loops.ended(self._place, self)

    def _cancel_on_loop(self) -> None:
        self._heard = True
        if self._task is not None:
            self._task.cancel()
        if self._verdict is not None:
            self._soft.stop()


def coroutine_function(fn: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the coroutine function that Dramatiq wrapped for a worker thread, or None for a plain function."""
    if getattr(fn, "__globals__", None) is not vars(dramatiq.asyncio):
        return None
    original: Callable[..., Any] | None = getattr(fn, "__wrapped__", None)
    return original
