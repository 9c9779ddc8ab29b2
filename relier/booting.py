"""Knows when Dramatiq's main process has heard that this worker has booted: only then may a task kill the worker.

The worker tells it by `multiprocessing.Event.set`, which holds the event's lock until the main process woke up. Who
dies in there leaves the lock taken, and the main process waits for it for ever, without a look at its workers.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any

from dramatiq import cli

#: How often (s) a worker looks, and for how long at most.
LOOK, LONGEST = 0.001, 30.0


def after_told(then: Callable[[], None]) -> None:
    """Call `then` as soon as the main process knows that this worker has booted; at once where nobody waits for that.

    To be called by the thread that boots the worker.
    """
    event = _event(sys._getframe())
    if event is None:
        then()
        return

    def wait() -> None:
        end = time.monotonic() + LONGEST
        while not _is_told(event) and time.monotonic() < end:
            time.sleep(LOOK)
        then()

    threading.Thread(target=wait, name="relier-booting", daemon=True).start()


def is_telling() -> bool:
    """Whether the main thread is in `Event.set`, which waits for its waiter to wake: a dead one never does."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and frame.f_code is not Event.set.__code__:
        frame = frame.f_back
    return frame is not None


def _event(frame: FrameType | None) -> Any:
    """Return the event by which Dramatiq's command line waits for this worker; None when that did not start it."""
    while frame is not None and frame.f_code is not cli.worker_process.__code__:
        frame = frame.f_back
    event = frame.f_locals.get("event") if frame is not None else None
    return event if isinstance(event, Event) else None


def _is_told(event: Any) -> bool:
    """Whether the event was set, without taking its lock."""
    try:
        return bool(event._flag.get_value()) and not is_telling()
    except NotImplementedError:  # macOS counts no semaphores.
        return True
