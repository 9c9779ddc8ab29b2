"""What a state of the world consists of, and how two states that mean the same become equal."""

from __future__ import annotations

from typing import NamedTuple

NOBODY = -1
QUEUE = -1


class Mark(NamedTuple):
    """A moment in a worker's life: by its count of snapshots, or (rule `beat_counts` off) by the server's clock."""

    snapshots: int = 0
    time: int = 0


NO_BEAT = Mark(-1, -1)


class Record(NamedTuple):
    """The task's record. Status: `s` waiting, `r` running, `h` hooks pending, `e` ended, `d` dead letter.

    `asked` is when its owner asked for it; `ahead` says that it waits for a time which the server's clock has passed
    once and, set back, will not reach for long.
    """

    status: str
    fence: int
    owner: int = NOBODY
    sticky: bool = False
    due: bool = False
    crashes: int = 0
    outcome: str = ""
    asked: Mark = Mark()
    ahead: bool = False


class Store(NamedTuple):
    """One shard. `workers` maps an identity to its stage.

    `alive`; `declared` dead, or `left` in order; `buried`; `gone`: its messages returned too.
    """

    record: Record | None = None
    floor: int = 0
    workers: tuple[tuple[int, str], ...] = ()
    ends: int = 0

    def stage(self, identity: int) -> str:
        for known, stage in self.workers:
            if known == identity:
                return stage
        return "unknown"

    def with_stage(self, identity: int, stage: str) -> Store:
        others = [entry for entry in self.workers if entry[0] != identity]
        return self._replace(workers=tuple(sorted([*others, (identity, stage)])))


class Copy(NamedTuple):
    """A message in the broker: its stamp's fence (0 = first-hand), and who has not acknowledged it yet."""

    stamp: int
    holder: int = QUEUE


class Broker(NamedTuple):
    copies: tuple[Copy, ...] = ()
    barred: tuple[int, ...] = ()

    def add(self, copy: Copy) -> Broker:
        return self._replace(copies=tuple(sorted([*self.copies, copy])))

    def remove(self, copy: Copy) -> Broker:
        copies = list(self.copies)
        copies.remove(copy)
        return self._replace(copies=tuple(copies))

    def requeue(self, identity: int) -> Broker:
        """Return everything the identity holds to the queue."""
        moved = [Copy(c.stamp, QUEUE if c.holder == identity else c.holder) for c in self.copies]
        return self._replace(copies=tuple(sorted(moved)))


class Delivery(NamedTuple):
    """A copy inside a process. `phase` is its next step, `...?` a call whose reply was lost and that is repeated.

    fetched → (claim?) → running → (commit? fail? hand_over?) → hooks → ack → settle
    Other ways out: `skip` (acknowledge, the store has custody) and `give_back`. `lost`: handed over, its code runs on.
    """

    caller: int
    stamp: int
    phase: str = "fetched"
    fence: int = 0
    connected: bool = True
    at_risk: bool = False
    doubtful: bool = False


class Process(NamedTuple):
    """A worker process; `beat` is the empty snapshot that its late beat carries, `snapshots` how many it has begun.

    `old`: its code is older than the task's actor. `draining`: it was told to end.
    """

    identity: int
    alive: bool = True
    deliveries: tuple[Delivery, ...] = ()
    beat: Mark = NO_BEAT
    snapshots: int = 0
    old: bool = False
    draining: bool = False


class Late(NamedTuple):
    """A request that its client gave up on and repeated, and that still arrives."""

    call: str
    caller: int
    stamp: int
    fence: int
    asked: Mark = Mark()


class State(NamedTuple):
    store: Store
    broker: Broker
    processes: tuple[Process, ...]
    faults: int
    clock: int = 0
    publishing: tuple[str, int] = ("", 0)
    """The resurrector's memory: nothing, or a fence that it `peeked` or has `sent`."""
    saved: tuple[Store, Broker] | None = None
    """What a crash of the store's server would bring back."""
    late: tuple[Late, ...] = ()
    rolled_back: bool = False
    hooks_ran: bool = False
    once_ended: bool = False
    """The task reached an end at least once, even if a rollback has forgotten it."""


def name(identity: int) -> str:
    return f"W{identity % 2 + 1}" + "'" * (identity // 2)
