"""The soft timeout of a run: its hook is called once, beside everything else."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import threading
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any

from relier.context import TaskContext
from relier.runs import Run
from relier.timeouts import Limits

logger = logging.getLogger(__name__)


class SoftTimeout:
    """Tells that a run takes long, and calls the actor's `on_soft_timeout` with its context.

    The hook has a thread of its own, and what it returns to be awaited runs on the event loop: it delays nobody. Its
    errors are logged.
    """

    __slots__ = ("_awaiting", "_hook", "_is_over", "_run", "at")

    def __init__(self, limits: Limits, run: Run, is_over: Callable[[], bool]) -> None:
        #: Seconds from the beginning of the run to the soft timeout; infinite when there is none to come.
        self.at = math.inf if limits.soft is None else limits.soft
        self._hook = limits.on_soft
        self._run = run
        self._is_over = is_over
        self._awaiting: asyncio.Task[Any] | None = None

    def pass_(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        """Take note that its time has come."""
        after, self.at = self.at, math.inf
        extra = {"task": self._run.task_id, "actor": self._run.actor_name, "seconds": after}
        logger.warning("A task takes longer than its soft timeout.", extra=extra)
        if self._run.trace is not None:
            self._run.trace.event("soft timeout", seconds=after)
        if self._hook is None:
            return
        thread = threading.Thread(
            target=context.copy().run, args=(self._call, loop), name="relier-soft-timeout", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no thread to be had
            logger.warning("The hook of a soft timeout failed.", extra=extra, exc_info=True)

    def stop(self) -> None:
        """End what the hook awaits; called on the loop, when the run was given up."""
        if self._awaiting is not None:
            self._awaiting.cancel()

    def _call(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._hook is None or self._is_over():
            return
        try:
            outcome = self._hook(TaskContext.of(self._run))
            if inspect.isawaitable(outcome):
                loop.call_soon_threadsafe(self._await, loop, outcome)
        except BaseException:
            self._log_failure()

    def _await(self, loop: asyncio.AbstractEventLoop, outcome: Awaitable[Any]) -> None:
        self._awaiting = loop.create_task(self._watched(outcome))

    async def _watched(self, outcome: Awaitable[Any]) -> None:
        try:
            await outcome
        except asyncio.CancelledError:
            raise
        except BaseException:  # Also what would end the loop's thread.
            self._log_failure()

    def _log_failure(self) -> None:
        extra = {"task": self._run.task_id, "actor": self._run.actor_name}
        logger.warning("The hook of a soft timeout failed.", extra=extra, exc_info=True)
