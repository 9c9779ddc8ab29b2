"""Where a coroutine is: the stack of one that waits."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any


def stack_of(task: asyncio.Task[Any] | None) -> str:
    """Return the stack of a task that waits, outermost call first; '' when there is none to see."""
    if task is None:
        return ""
    frames = [(frame, frame.f_lineno) for frame in _frames(task.get_coro())]
    return "".join(traceback.StackSummary.extract(iter(frames)).format())


def _frames(awaited: Any) -> Iterator[FrameType]:
    """Follow what each coroutine awaits, down to a future."""
    while awaited is not None:
        frame = _first(awaited, "cr_frame", "gi_frame", "ag_frame")
        if frame is None:
            return
        yield frame
        awaited = _first(awaited, "cr_await", "gi_yieldfrom", "ag_await")


def _first(thing: Any, *names: str) -> Any:
    return next((value for name in names if (value := getattr(thing, name, None)) is not None), None)
