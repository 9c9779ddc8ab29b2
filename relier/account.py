"""The account of all tasks: whatever was pushed has ended, or is somewhere where it will go on.

    pushed = completed + dead + discarded + on its way
    on its way = waiting + running (records of the store) + without a record (only the broker knows of them)

The store's counters say how many tasks were begun and how they ended, its statistics say the same by queue and actor,
its records say which ones have not ended. `relier.auditing` reads all of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

#: Every counter, in the order of the reference.
COUNTERS = (
    *("accepted", "completed", "failed", "retries", "stopped_identical", "dead", "notices", "dlq_left"),
    *("discarded", "idempotency_hits", "duplicates_waited", "unsigned", "integrity_failures"),
    *("crashes", "resurrections", "handed_over", "parked", "declined", "published"),
    *("replays", "hooks_abandoned", "refused", "released", "adopted", "rollbacks"),
    *("admitted", "admission_rejected", "admission_failed_open"),
)
#: The counters that tell tasks begun from tasks ended; each step of a task moves the balance by one at most.
IN_BALANCE = ("accepted", "completed", "dead", "dlq_left", "discarded")
#: A queue and an actor.
Place = tuple[str, str]


@dataclass(slots=True)
class Line:
    """The tasks of one actor in one queue."""

    queue: str
    actor: str
    accepted: int = 0
    completed: int = 0
    dead_letters: int = 0
    discarded: int = 0
    waiting: int = 0
    running: int = 0

    @property
    def difference(self) -> int:
        """Accepted tasks that neither ended nor have a record; negative: that ended and were not accepted."""
        ended = self.completed + self.dead_letters + self.discarded
        return self.accepted - ended - self.waiting - self.running

    def add(self, other: Line) -> None:
        for name in ("accepted", "completed", "dead_letters", "discarded", "waiting", "running"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Gap(NamedTuple):
    """Where the account does not add up. Without queue and actor: only the shard is known."""

    shard: int
    queue: str
    actor: str
    difference: int


class Lost(NamedTuple):
    """A task that an index of the store has, and that has no record."""

    task_id: str
    shard: int
    found_in: str  #: due, dlq, or `running on` and a worker


@dataclass(slots=True)
class QueueAccount:
    """One queue in the broker."""

    queue: str
    messages: int  #: that wait
    held: int | None  #: that workers have and did not acknowledge; None where the broker cannot tell
    #: Tasks with a record that may have a copy among them.
    recorded: int = 0

    @property
    def without_record(self) -> int:
        """How many of them nobody but the broker knows of: at least so many, and at most `recorded` more."""
        return max(0, self.messages + (self.held or 0) - self.recorded)


@dataclass(slots=True)
class Account:
    """What the counters say, against what the records and the broker say."""

    counters: Counter[str] = field(default_factory=Counter)
    lines: dict[Place, Line] = field(default_factory=dict)
    dead_letters: int = 0
    #: Steps that tasks made between two looks at their shard: the account may be off by as much.
    in_motion: int = 0
    gaps: list[Gap] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    #: Tasks that nothing will move on.
    stranded: list[str] = field(default_factory=list)
    newer: int = 0
    #: What was counted and belongs to no queue and actor: by a version of Relier without statistics.
    unattributed: int = 0
    queues: dict[str, QueueAccount] = field(default_factory=dict)

    def total(self, name: str) -> int:
        return sum(getattr(line, name) for line in self.lines.values())

    @property
    def ended(self) -> int:
        counted = self.counters
        return counted["completed"] + counted["dead"] - counted["dlq_left"] + counted["discarded"]

    @property
    def difference(self) -> int:
        """Accepted tasks that neither ended nor have an unended record."""
        return self.counters["accepted"] - self.ended - self.total("waiting") - self.total("running")

    @property
    def without_record(self) -> int:
        return sum(queue.without_record for queue in self.queues.values())

    @property
    def on_the_way(self) -> int:
        return self.total("waiting") + self.total("running") + self.without_record

    @property
    def wrong_shards(self) -> list[int]:
        return sorted({gap.shard for gap in self.gaps} | {lost.shard for lost in self.lost})

    @property
    def adds_up(self) -> bool:
        return not self.gaps and not self.lost and not self.stranded
