"""Runs an actor's function so that its run can be cancelled."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import Any

import dramatiq.asyncio
from dramatiq.asyncio import get_event_loop_thread
from dramatiq.threading import Interrupt

#: How often (s) the waiting thread wakes, so that Dramatiq's interrupts reach it.
WAKE_INTERVAL = 0.1

#: How long (s) a cancelled coroutine may take for its clean-up before its thread goes on without it.
CLEANUP_TIME = 1.0


class RunCancelled(Exception):
    """The run was cancelled from outside; the store decided about its task before."""


class CoroutineRun:
    """One coroutine on the process's event loop, waited for by a worker thread.

    Parameters:
      start: returns the coroutine; called on the event loop.
    """

    def __init__(self, start: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._start = start
        self._task: asyncio.Task[Any] | None = None
        self._done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._cancelled = threading.Event()
        thread = get_event_loop_thread()
        if thread is None or not thread.loop.is_running():
            raise RuntimeError("There is no event loop for async actors: install Relier on the broker before it boots.")
        self._loop = thread.loop

    def cancel(self) -> None:
        """Ask the coroutine to stop; returns at once, from any thread, also before it began."""
        self._cancelled.set()
        self._loop.call_soon_threadsafe(self._cancel_on_loop)

    def _cancel_on_loop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def wait(self) -> Any:
        """Run the coroutine and return its result. Raises `RunCancelled` after `cancel`."""
        context = copy_context()
        self._loop.call_soon_threadsafe(self._begin, context=context)
        try:
            while True:
                try:
                    return self._done.result(timeout=WAKE_INTERVAL)
                except concurrent.futures.CancelledError:
                    raise RunCancelled("the run was cancelled") from None
                except TimeoutError:
                    if self._done.done():
                        raise  # The coroutine's own TimeoutError.
        except Interrupt:
            self.cancel()
            concurrent.futures.wait([self._done], timeout=CLEANUP_TIME)
            raise

    def _begin(self) -> None:
        if self._cancelled.is_set():
            self._done.cancel()
            return
        self._task = self._loop.create_task(self._start())
        self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._done.cancel()
        elif (error := task.exception()) is not None:
            self._done.set_exception(error)
        else:
            self._done.set_result(task.result())


def coroutine_function(fn: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the coroutine function that Dramatiq wrapped for a worker thread, or None for a plain function."""
    if getattr(fn, "__globals__", None) is not vars(dramatiq.asyncio):
        return None
    original: Callable[..., Any] | None = getattr(fn, "__wrapped__", None)
    return original
