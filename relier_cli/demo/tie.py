"""Tie processes to the demo: whatever ends it, SIGKILL included, ends them.

The demo holds a lock on a file; the others wait for it, and end when they get it. The kernel drops it with its holder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from pathlib import Path


def hold(path: Path) -> int:
    """Take the lock for as long as this process lives; returns the descriptor that must stay open."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.lockf(fd, fcntl.LOCK_EX)  # Not flock: forked children would hold it as well.
    return fd


def follow(path: str) -> None:
    """End this process, at once, when the holder of the lock has ended."""
    threading.Thread(target=_wait_and_end, args=(path,), name="demo-tie", daemon=True).start()


def _wait_and_end(path: str) -> None:
    with contextlib.suppress(OSError):  # No such file: the demo has cleaned up.
        fcntl.lockf(os.open(path, os.O_RDWR | os.O_CLOEXEC), fcntl.LOCK_EX)
    os._exit(1)
