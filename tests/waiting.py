"""Wait for conditions instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05


def wait_until(condition: Callable[[], T], timeout: float = 60.0, what: str = "") -> T:
    """Return the condition's first true value; fail, naming `what`, after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = _FIRST_PAUSE
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for: {what or condition}")
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return value


async def await_until(condition: Callable[[], T], timeout: float = 60.0, what: str = "") -> T:
    """Do the same without blocking the event loop."""
    return await asyncio.to_thread(wait_until, condition, timeout, what)
