"""How many tasks wait in the queues that this process pushes to: measured beside the pushes, never within one."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from relier.endurance import endless

logger = logging.getLogger(__name__)

#: Time (s) between two measurements.
EVERY = 1.0
#: A queue that nobody pushed to for so long (s) is measured no more, and a measurement of that age says nothing.
FORGOTTEN = 5.0
#: The shortest and the longest time (s) after which a refused task is told to come again, and that before the rate is
#: known.
SOONEST, LATEST, UNKNOWN = 1.0, 60.0, 5.0

_now = time.monotonic


@dataclass(frozen=True, slots=True)
class Measured:
    """What was last seen of a queue."""

    depth: int
    at: float
    drained: float = 0.0  #: tasks a second, while nothing was admitted; 0: not known


@dataclass(frozen=True, slots=True)
class Deep:
    """A queue in which too many tasks wait."""

    queue: str
    depth: int
    most: int
    wait: float  #: seconds after which there may be room


class Backlog:
    """Says which queues are too deep.

    Parameters:
      depth: returns how many tasks wait in a queue, None when that cannot be told. May block, and may raise.
      most: how many may.
    """

    def __init__(self, depth: Callable[[str], int | None], most: int) -> None:
        self._depth = depth
        self._most = most
        self._begin()
        _existing.add(self)

    def _begin(self) -> None:
        self._asked: dict[str, float] = {}
        self._measured: dict[str, Measured] = {}
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._stopped = threading.Event()

    def too_deep(self, queue: str) -> Deep | None:
        """Return how deep a queue is that takes no more; None when there is room, or nothing is known."""
        now = self._asked[queue] = _now()
        if self._thread is None:
            self._start()
        seen = self._measured.get(queue)
        if seen is None or seen.depth < self._most or now - seen.at > FORGOTTEN:
            return None
        return Deep(queue, seen.depth, self._most, self._wait(seen))

    def _wait(self, seen: Measured) -> float:
        if not seen.drained:
            return UNKNOWN
        return min(LATEST, max(SOONEST, (seen.depth - self._most + 1) / seen.drained))

    def close(self) -> None:
        """Measure no more."""
        self._stopped.set()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._stopped.is_set():
                run = endless(self._watch, self._stopped)
                self._thread = threading.Thread(target=run, name="relier-backlog", daemon=True)
                self._thread.start()

    def _watch(self) -> None:
        while True:
            for queue, asked in list(self._asked.items()):
                if _now() - asked > FORGOTTEN:
                    self._asked.pop(queue, None)
                    self._measured.pop(queue, None)
                else:
                    self.measure(queue)
            if self._stopped.wait(EVERY):
                return

    def measure(self, queue: str) -> None:
        """Look at one queue."""
        try:
            depth = self._depth(queue)
        except Exception as error:  # Whatever a broker raises that is away: then it is not too deep.
            logger.debug("A queue could not be measured.", extra={"queue": queue, "error": type(error).__name__})
            depth = None
        if depth is None:
            self._measured.pop(queue, None)
            return
        now, before = _now(), self._measured.get(queue)
        self._measured[queue] = Measured(depth, now, self._drained(before, depth, now))

    def _drained(self, before: Measured | None, depth: int, now: float) -> float:
        """Return how fast the queue gets shorter. Only while it is too deep: else pushes hide it."""
        if before is None or before.depth < self._most or now <= before.at:
            return before.drained if before else 0.0
        rate = max(0.0, (before.depth - depth) / (now - before.at))
        return (before.drained + rate) / 2 if before.drained else rate


_existing: weakref.WeakSet[Backlog] = weakref.WeakSet()


def _in_child() -> None:
    for backlog in list(_existing):
        backlog._begin()


os.register_at_fork(after_in_child=_in_child)
