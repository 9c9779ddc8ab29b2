"""What a worker does when Dramatiq's main process is gone: it ends in order, within a bound, whatever it logs.

The main process reads a pipe for each worker. Nobody reads an orphan's, and who writes to a full pipe waits for ever.
"""

from __future__ import annotations

import os
import re
import select
import signal
import stat
import sys
import threading
import time
from contextlib import suppress

from relier.booting import is_telling
from relier.ending import KILLED, is_ending
from relier.endurance import endless
from relier.logging import get_logger

log = get_logger(__name__)

#: How often (s) a worker looks for its main process.
LOOK_FOR_PARENT = 0.5

#: What `multiprocessing` writes in front of each log line: its length, below 16 MB.
_LENGTH = re.compile(rb"\x00[\x00-\xff]{3}")


def follow_parent() -> None:
    """End this worker like after SIGTERM when its parent is gone."""
    parent, pipe = os.getppid(), _log_pipe()

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_FOR_PARENT)
        if pipe is not None:
            threading.Thread(target=relay_logs, args=(pipe,), name="relier-orphan-logs", daemon=True).start()
        log.warning("The main process is gone: this worker ends as well.")
        if not is_ending():  # A second signal would end it at once.
            os.kill(os.getpid(), signal.SIGTERM)
        while True:
            _end_if_stuck_in_boot()
            time.sleep(LOOK_FOR_PARENT)

    threading.Thread(target=endless(follow, threading.Event()), name="relier-parent", daemon=True).start()


def _log_pipe() -> int | None:
    """Return the pipe to the main process, where stdout and stderr lead to one."""
    try:
        pipe = sys.stderr.fileno()
        return pipe if pipe > 2 and stat.S_ISFIFO(os.fstat(pipe).st_mode) else None
    except (OSError, ValueError, AttributeError):
        return None


def _end_if_stuck_in_boot() -> None:
    if is_telling():
        log.warning("The main process died while this worker booted: ending at once.")
        os._exit(KILLED)


# -- logs -----------------------------------------------------------------------------------------------------------


def relay_logs(pipe: int) -> None:
    """Read what this process writes to `pipe`, in the main process's place, and pass it on to the real stderr.

    What that does not take at once is dropped. A thread that waits for room in the pipe goes on.
    """
    try:
        logs = os.open(f"/proc/self/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # Not Linux. Whoever waits already is not helped, but nobody else will.
        os.dup2(os.open(os.devnull, os.O_WRONLY), pipe, inheritable=False)
        return
    out, rest = _stderr(), b""
    while True:
        select.select([logs], [], [])
        with suppress(BlockingIOError):
            received = os.read(logs, 65_536)
            if not received:
                return
            text, rest = _without_lengths(rest + received)
            with suppress(OSError):
                os.write(out, text)


def _stderr() -> int:
    """Open the real stderr once more, so that writing to it never blocks, without a change for others who have it."""
    try:
        return os.open("/proc/self/fd/2", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # A socket.
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def _without_lengths(received: bytes) -> tuple[bytes, bytes]:
    """Return the text without the lengths in it, and a length that is still incomplete."""
    text = _LENGTH.sub(b"", received)
    cut = text.find(b"\x00")
    return (text, b"") if cut < 0 else (text[:cut], text[cut:])
