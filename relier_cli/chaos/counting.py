"""What the store has counted of one actor since an experiment began."""

from __future__ import annotations

from collections.abc import Sequence

from relier.store.statistics import BOUNDS, Row
from relier_cli.chaos.stage import Stage

#: What ends a task.
ENDS = ("completed", "dead", "discarded")


class Counting:
    """Counts from its making on. Others who use the same actor meanwhile are counted as well."""

    def __init__(self, stage: Stage, queue: str, actor: str) -> None:
        self._stage = stage
        self._place = (queue, actor)
        self._before = self._row()
        self._now = self._before

    def look(self) -> None:
        self._now = self._row()

    def _row(self) -> Row | None:
        rows = self._stage.store.statistics.totals()
        return next((row for row in rows if (row.queue, row.actor) == self._place), None)

    def __getitem__(self, name: str) -> int:
        """Return how often something has happened, as of the last look."""
        return (self._now[name] if self._now else 0) - (self._before[name] if self._before else 0)

    @property
    def ended(self) -> int:
        return sum(self[name] for name in ENDS)

    def wait_p95(self) -> float | None:
        """Return the time (s) in the queue that 95 % of the tasks were not above; the bound of a bucket."""
        if self._now is None:
            return None
        before: Sequence[int] = self._before.waits.counts if self._before else ()
        counts = [n - (before[i] if before else 0) for i, n in enumerate(self._now.waits.counts)]
        wanted, seen = -(-sum(counts) * 95 // 100), 0
        for bound, n in zip((*BOUNDS, float("inf")), counts, strict=True):
            seen += n
            if n and seen >= wanted:
                return float(min(bound, BOUNDS[-1]))
        return None
