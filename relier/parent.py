"""End with the process that started us: nobody supervises an orphan, and its logs have no reader."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

#: `prctl` option: the signal that the kernel sends to us when our parent is gone.
_PR_SET_PDEATHSIG = 1


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
    """Get SIGTERM when the process `parent`, which is our parent, ends. Does nothing where there is no `prctl`."""
    if _prctl is None:
        return
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # It ended before the kernel knew our wish.
        os.kill(os.getpid(), signal.SIGTERM)
