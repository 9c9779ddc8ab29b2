"""How our processes end: with the process that started them, and at once at a second signal."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

from relier.logging import get_logger

log = get_logger(__name__)

#: `prctl` option: the signal that the kernel sends to us when our parent is gone.
_PR_SET_PDEATHSIG = 1
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

#: When (monotonic) this worker was first asked to end.
_asked: list[float] = []


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when the process `parent`, which is our parent, ends. Survives an exec. Linux only.

    The signal comes once for each thread of the parent that ends, so it suits children of single-threaded ones.
    """
    if _prctl is None:
        return
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # It ended before the kernel knew our wish.
        os.kill(os.getpid(), signal.SIGTERM)


def is_ending() -> bool:
    """Whether this worker was asked to end."""
    return bool(_asked)


def end_at_second_signal() -> None:
    """Let a second SIGTERM or SIGHUP end this worker at once: Dramatiq's own way waits for ever for other threads.

    What it ran is put back like a dead worker's.
    """

    def wrapped(handler: Callable[[int, FrameType | None], object]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            if not _asked:
                _asked.append(time.monotonic())
                handler(number, frame)
            elif time.monotonic() - _asked[0] > SAME_WISH:
                log.warning("A second signal: ending at once.", signal=signal.Signals(number).name)
                os._exit(KILLED)

        return handle

    for number in (signal.SIGTERM, signal.SIGHUP):
        handler = signal.getsignal(number)
        if callable(handler):
            signal.signal(number, wrapped(handler))
