"""How our processes end: in order within a bound, with the process that started them, at once at a second signal."""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from relier.logging import get_logger

if TYPE_CHECKING:
    from relier.drain import Drain

log = get_logger(__name__)

#: `prctl` option: the signal that the kernel sends to us when our parent is gone.
_PR_SET_PDEATHSIG = 1
#: A signal that comes this soon (s) after the first one is the same wish: systemd signals parent and child, and the
#: parent passes its own on.
SAME_WISH = 1.0
#: Dramatiq's exit code of a worker that was ended by a second signal; also of one that could not end in order.
KILLED = 1
#: Exit codes under `rl worker start`, which has asked for them: after `rl worker drain` none is started in its place,
#: after `rl worker restart` another one at once. Anybody else sees 0.
DRAINED, RESTARTED = 79, 80
#: A worker has ended this long (s) after `RELIER_GRACEFUL_SHUTDOWN_TIMEOUT`. Two seconds are promised, and Dramatiq's
#: main process often waits for another second of logs.
END_WITHIN = 0.8
#: A worker in which no Python code runs any more is ended by a thread without Python this much (s) later.
LAST_RESORT = 0.1
#: How often (s) a worker that ends looks whether it is stuck.
LOOK = 0.02
#: How long (s) the main process gets to read the last log lines.
FAREWELL = 0.03

#: What else is to be told before a process ends in order, as far as there is time.
farewells: list[Callable[[], object]] = []


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
#: Wakes the thread that ends this worker; it may be put to in a signal handler.
_wishes: queue.SimpleQueue[None] = queue.SimpleQueue()
#: Our signal handlers, by signal.
_handlers: dict[int, Callable[[int, FrameType | None], None]] = {}
_begun = threading.Lock()


def end_with_parent(parent: int) -> None:
    """Get SIGTERM when the process `parent`, which is our parent, ends. Survives an exec. Linux only.

    The signal comes once for each thread of the parent that ends, so it suits children of single-threaded ones.
    """
    if _prctl is None:
        return
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # It ended before the kernel knew our wish.
        os.kill(os.getpid(), signal.SIGTERM)


# -- signals ----------------------------------------------------------------------------------------------------------


def is_ending() -> bool:
    """Whether this worker was asked to end by a signal."""
    return bool(_asked)


def end_by_signals(drain: Callable[[], Drain | None]) -> None:
    """Let SIGTERM and SIGHUP end this worker in order, at once and within a bound; a second one ends it there and then.

    Dramatiq's own way begins up to a second later and waits ten minutes for its threads; after a second signal, for
    ever. What ran at a second signal is put back like a dead worker's.

    Parameters:
      drain: returns the worker's, or None while it boots.
    """

    def wrapped(handler: Callable[[int, FrameType | None], object]) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            if not _asked:
                _asked.append(time.monotonic())
                handler(number, frame)
                _wishes.put(None)
            elif time.monotonic() - _asked[0] > SAME_WISH:
                log.warning("A second signal: ending at once.", signal=signal.Signals(number).name)
                os._exit(KILLED)

        return handle

    def wait() -> None:
        _wishes.get()
        end_in_order(drain())

    threading.Thread(target=wait, name="relier-ending", daemon=True).start()
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


# -- the end ----------------------------------------------------------------------------------------------------------


def end_in_order(drain: Drain | None) -> None:
    """Drain this worker and end its process, at most `END_WITHIN` seconds after its time is up. Blocks.

    Dramatiq's main thread ends the process first where nothing holds it up. A second caller returns at once.

    Parameters:
      drain: the worker's, or None while its modules are imported.
    """
    if drain is None or not drain.joined:
        _end_before_work(drain)
    if not _begun.acquire(blocking=False):
        return
    latest = max(drain.begin(), time.monotonic()) + END_WITHIN
    drain.end()
    _end_without_python(latest + LAST_RESORT)
    drain.over.wait(latest - time.monotonic())
    if not (drain.over.is_set() and drain.clean):
        tasks = len(drain.process.runs)
        log.error("Not everything could be handed over: it runs again once this worker is found dead.", tasks=tasks)
        _exit(KILLED)
    while not drain.is_stuck and time.monotonic() < latest:
        time.sleep(LOOK)
    log.info("Everything is handed over; ending without the threads that are still busy.")
    _exit(drain.exit_code, latest)


def _end_before_work(drain: Drain | None) -> NoReturn:
    log.info("This worker ends before it took any task.")
    if drain is None:
        _exit(0)
    leaving = threading.Thread(target=drain.process.leave, daemon=True)
    leaving.start()
    leaving.join(END_WITHIN)
    _exit(drain.exit_code)


def _end_without_python(at: float) -> None:
    """End this process at that time (monotonic) even when a task then holds the interpreter; it says which."""
    try:
        faulthandler.dump_traceback_later(max(0.1, at - time.monotonic()), exit=True, file=2)
    except (RuntimeError, ValueError, OSError):  # There is no stderr.
        log.debug("A task that holds the interpreter will hold up the end.")


def _exit(code: int, latest: float = 0.0) -> NoReturn:
    """End this process now; what it logged is passed on first, and the farewells until `latest` (monotonic)."""
    for call in (*farewells, logging.shutdown):
        telling = threading.Thread(target=call, daemon=True)
        telling.start()
        telling.join(max(FAREWELL, latest - time.monotonic() if call in farewells else 0.0))
    time.sleep(FAREWELL)
    os._exit(code)
