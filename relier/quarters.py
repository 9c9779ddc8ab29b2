"""Who runs beside whom in one process, so that a crash can be laid at the right door (R9)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from relier.store import Suspicion

#: How long (s) a task on its last chance waits for its neighbours to end before it starts beside them: what has run
#: for this long is not what kills a process at once.
WAIT_FOR_OTHERS = 10.0
#: How long (s) it keeps others from starting beside it: one that runs for hours must not idle its process.
ALONE_FOR = 30.0
#: Longest wait (s) for the process to have booted.
BOOT = 10.0


class Quarters:
    """One process's threads: suspects run one at a time, and a task on its last chance with nothing beside it.

    A thread has one task at a time, so it is known by its identity: what an interrupt left behind is put right when the
    thread enters or leaves again.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, Suspicion] = {}
        self._alone: int | None = None
        self._until = 0.0
        self._booted = threading.Event()
        self._booted.set()

    def begin_boot(self) -> None:
        """Let nobody enter until `end_boot`.

        Dramatiq's main process waits up to 30 s for a worker to tell that it has booted, and notices its death only
        then. What killed the last worker is the first thing that the next one takes.
        """
        self._booted.clear()

    def end_boot(self) -> None:
        self._booted.set()

    def enter(self, suspicion: Suspicion, before_waiting: Callable[[], None] = lambda: None) -> bool:
        """Enter with the calling thread's task, as soon as others leave room for it; returns whether a suspect may run.

        A suspect that may not is offered again by the store: its thread is better used for something else. A thread is
        inside until it leaves or enters again; `before_waiting` ends what it still does inside.
        """
        me = threading.get_ident()
        self._booted.wait(BOOT)
        with self._changed:
            if suspicion is not Suspicion.LAST and not self._is_reserved():
                return self._enter_beside_others(me, suspicion)
        before_waiting()
        with self._changed:
            self._inside.pop(me, None)
            if suspicion is Suspicion.LAST:
                return self._enter_alone(me)
            while self._is_reserved() and (left := self._until - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._enter_beside_others(me, suspicion)

    def leave(self) -> None:
        """Leave, whether or not the calling thread is inside."""
        me = threading.get_ident()
        with self._changed:
            self._inside.pop(me, None)
            if self._alone == me:
                self._alone = None
            self._changed.notify_all()

    def _enter_beside_others(self, me: int, suspicion: Suspicion) -> bool:
        self._inside.pop(me, None)
        free = not any(self._inside.values())
        self._inside[me] = suspicion if free else Suspicion.NONE
        return free

    def _enter_alone(self, me: int) -> bool:
        if self._is_reserved() or any(self._inside.values()):
            self._inside[me] = Suspicion.NONE
            return False
        self._alone, self._until = me, time.monotonic() + WAIT_FOR_OTHERS
        self._changed.wait_for(lambda: not self._inside, WAIT_FOR_OTHERS)
        self._inside[me], self._until = Suspicion.LAST, time.monotonic() + ALONE_FOR
        return True

    def _is_reserved(self) -> bool:
        return self._alone is not None and time.monotonic() < self._until
