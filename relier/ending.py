"""How our processes end: with the process that started them, and at once at a second signal."""

from __future__ import annotations

import ctypes
import multiprocessing.synchronize
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from relier.logging import get_logger

log = get_logger(__name__)

#: `prctl` option: the signal that the kernel sends to us when our parent is gone.
_PR_SET_PDEATHSIG = 1
#: How often (s) an orphan looks for its parent.
LOOK_FOR_PARENT = 1.0
#: A signal that comes this soon (s) after the first one is the same wish: systemd signals parent and child, and the
#: parent passes its own on.
SAME_WISH = 1.0
#: Dramatiq's exit code of a worker that was ended by a second signal.
KILLED = 1


def _find_prctl() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        prctl: Callable[..., int] = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None
    return prctl


_prctl = _find_prctl()


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when the process `parent`, which is our parent, ends. Survives an exec. Linux only.

    The signal comes once for each thread of the parent that ends, so it suits children of single-threaded ones.
    """
    if _prctl is None:
        return
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # It ended before the kernel knew our wish.
        os.kill(os.getpid(), signal.SIGTERM)


def follow_parent() -> None:
    """Send SIGTERM to this process when its parent is gone: nobody reads an orphan's logs, and it blocks on them."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_FOR_PARENT)
        os.kill(os.getpid(), signal.SIGTERM)
        while not _tells_parent_that_it_booted():
            time.sleep(LOOK_FOR_PARENT)
        log.warning("The main process died while this worker booted: ending at once.")
        os._exit(KILLED)

    threading.Thread(target=watch, name="relier-parent", daemon=True).start()


def _tells_parent_that_it_booted() -> bool:
    """Whether the main thread is in `Event.set`, which waits for its waiter to wake: a dead one never does."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None and frame.f_code is not multiprocessing.synchronize.Event.set.__code__:
        frame = frame.f_back
    return frame is not None


def end_at_second_signal() -> None:
    """Let a second SIGTERM or SIGHUP end this worker at once: Dramatiq's own way waits for ever for other threads.

    What it ran is put back like a dead worker's.
    """
    first: list[float] = []

    def wrapped(handler: Callable[[int, FrameType | None], object]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            if not first:
                first.append(time.monotonic())
                handler(number, frame)
            elif time.monotonic() - first[0] > SAME_WISH:
                log.warning("A second signal: ending at once.", signal=signal.Signals(number).name)
                os._exit(KILLED)

        return handle

    for number in (signal.SIGTERM, signal.SIGHUP):
        handler = signal.getsignal(number)
        if callable(handler):
            signal.signal(number, wrapped(handler))
