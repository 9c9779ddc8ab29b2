"""How our processes end: with the process that started them, and at once at a second signal."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

from relier.errors import RelierError
from relier.logging import get_logger
from relier.settings import get_settings

if TYPE_CHECKING:
    from relier.process import WorkerProcess

log = get_logger(__name__)

#: `prctl` option: the signal that the kernel sends to us when our parent is gone.
_PR_SET_PDEATHSIG = 1
#: A signal that comes this soon (s) after the first one is the same wish: systemd signals parent and child, and the
#: parent passes its own on.
SAME_WISH = 1.0
#: Dramatiq's exit code of a worker that was ended by a second signal.
KILLED = 1
#: How long (s) a worker may take to hand over what it runs; after that it ends like a killed one.
HAND_OVER_TIME = 5.0
#: How often (s) a worker that ends looks whether it is stuck.
LOOK = 0.5


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
#: Our signal handlers, by signal.
_handlers: dict[int, Callable[[int, FrameType | None], None]] = {}


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
            _handlers[number] = wrapped(handler)
            signal.signal(number, _handlers[number])


_forking = threading.local()


def _before_fork() -> None:
    """Hold signals back that may come to the child before it is one."""
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _handlers)


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _in_forked_child() -> None:
    """Let signals end a process that user code forks off a worker: our handlers would only note them."""
    for number, handler in _handlers.items():
        if signal.getsignal(number) is handler:
            signal.signal(number, signal.SIG_DFL)
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_forked_child)


def end_in_order(process: Callable[[], WorkerProcess | None], meanwhile: Callable[[], None] = lambda: None) -> None:
    """End this process like after SIGTERM; what still runs after `RELIER_GRACEFUL_SHUTDOWN_TIMEOUT` is handed over.

    Blocks; to be called on a thread of its own.

    Parameters:
      process: returns the worker process, or None while it boots.
      meanwhile: called again and again during the wait.
    """
    if not is_ending():  # A second signal would end it at once.
        os.kill(os.getpid(), signal.SIGTERM)
    deadline = time.monotonic() + _patience()
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(LOOK, left))
        meanwhile()
    running = process()
    if running is not None:
        log.warning("Time is up: handing over what still runs.", tasks=len(running.runs))
        leaving = threading.Thread(target=running.abandon, name="relier-hand-over", daemon=True)
        leaving.start()
        leaving.join(HAND_OVER_TIME)
    os._exit(KILLED)


def _patience() -> float:
    try:
        return get_settings().graceful_shutdown_timeout
    except RelierError:  # Its boot ends for this reason.
        return 0.0
