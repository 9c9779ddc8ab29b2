"""Where code is: the stack of a coroutine that waits, and the frames that an exception went through."""

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


#: Longest text (characters) of the frames of an exception.
FRAMES_KEPT = 8_000


def type_name(error: BaseException) -> str:
    """Return an exception's type as tracebacks name it."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def frames_of(error: BaseException) -> str:
    """Return the traceback of an exception without what it says: its text may hold a payload.

    Of what it came from, the types are named.
    """
    text = "".join(traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__)).format())
    causes, seen = [type_name(error)], {id(error)}
    while (cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        if id(cause) in seen:
            break
        seen.add(id(cause))
        causes.append(type_name(cause))
        error = cause
    return f"{text[-FRAMES_KEPT:]}{', from '.join(causes)}"
