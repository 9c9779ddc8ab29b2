"""Threads that must not end: ours begin anew, whatever happens; a worker that lost one of Dramatiq's is of no use."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from contextlib import suppress

from dramatiq import Worker

#: Pause (s) before a thread's loop begins anew.
PAUSE = 0.2


def endless(loop: Callable[[], None], stopped: threading.Event) -> Callable[[], None]:
    """Return a thread's target that runs `loop` again when it raises, until `stopped` is set.

    A loop that handles its errors needs it as well: without memory the handler fails, too.
    """

    def run() -> None:
        while not stopped.is_set():
            try:
                loop()
                return
            except Exception:
                with suppress(Exception):
                    stopped.wait(PAUSE)

    return run


def free_memory(error: BaseException | None) -> None:
    """Drop what the frames of an error's traceback hold, so that the failure of a task that ate all memory can be told.

    Does nothing for other errors: their frames may be of use to somebody.
    """
    while isinstance(error, MemoryError):
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def lost_threads(worker: Worker) -> list[str]:
    """Return the names of those of a worker's threads that ended by themselves: Dramatiq never replaces them.

    What such a thread held is neither run nor given back while its process lives.
    """
    threads: list[threading.Thread] = [*worker.workers, *worker.consumers.values()]
    return [thread.name for thread in threads if _has_ended(thread)]


def _has_ended(thread: threading.Thread) -> bool:
    """Whether a thread was alive and is no more. One that starts at this moment has an `ident` and is not alive yet."""
    if thread.ident is None or thread.is_alive():
        return False
    try:
        thread.join(timeout=0)
    except RuntimeError:  # not started
        return False
    return not thread.is_alive()
