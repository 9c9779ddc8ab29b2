"""Interrupts the user code of one sync run, and nothing else: not its closing, not its thread's next task."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dramatiq.middleware import Interrupt
from dramatiq.threading import raise_thread_exception

if TYPE_CHECKING:
    from relier.runs import Run

#: Held while a thread is interrupted, and while one leaves user code. Nothing that takes time is done under it.
_lock = threading.Lock()


class TaskCancelled(Interrupt):
    """Raised in the thread of a sync actor whose task was cancelled, at the next line of Python that it runs.

    Like Dramatiq's other interrupts it is no `Exception`. Clean up with `finally`, or catch it and raise it again: an
    actor that catches it and returns has completed.
    """


def admit(run: Run) -> None:
    """Let the calling thread be interrupted: it is about to call the actor."""
    run.thread = threading.get_ident()


def interrupt(run: Run) -> None:
    """Interrupt the user code of a run, if it is in there. May be repeated, since code may catch an interrupt."""
    with _lock:
        if run.thread:
            run.is_interrupted = True
            raise_thread_exception(run.thread, TaskCancelled)  # type: ignore[no-untyped-call]


def shut(run: Run) -> None:
    """Let the calling thread not be interrupted any more; it has left the actor. To be repeated when interrupted."""
    if run.thread:
        with _lock:
            run.thread = 0
    if run.is_interrupted:
        _let_it_come()
        run.is_interrupted = False


def _let_it_come() -> None:
    """Have an interrupt that is on its way raised here: the interpreter looks for one at each turn of a loop.

    Clearing it instead (`PyThreadState_SetAsyncExc` with nothing) leaves Python 3.11 looking at every line for ever.
    """
    for _ in range(3):
        pass
