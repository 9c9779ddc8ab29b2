"""The world around the store in the state machine: a broker, worker processes, and what must be true of them.

Everything here behaves as the design asks of brokers and workers. What it knows and a real worker cannot know is used
for judging only.
"""

from __future__ import annotations

import copy as copying
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from relier.store import Sending, Settled
from relier.store.letter_entries import Entry

SHARDS = (0, 1)

Phase = Literal["fetched", "claim?", "running", "close?", "hooks", "ack", "skip"]

Kind = Literal["one redis", "two redises", "amqp"]
KINDS: tuple[Kind, ...] = ("one redis", "two redises", "amqp")

#: Phases in which the task is in its process's local set (R8).
LOCAL = frozenset({"claim?", "running", "close?", "hooks", "ack"})


@dataclass(frozen=True, slots=True)
class Copy:
    """A message in the broker; `stamp` is the fence it carries, 0 for a first-hand copy."""

    number: int
    task: str
    stamp: int
    suspect: bool = False


@dataclass(slots=True)
class Broker:
    """Copies by number, and who holds each one unacknowledged ('' while it is in the queue)."""

    copies: dict[int, Copy] = field(default_factory=dict)
    holders: dict[int, str] = field(default_factory=dict)
    barred: set[str] = field(default_factory=set)

    def enqueue(self, copy: Copy) -> None:
        self.copies[copy.number], self.holders[copy.number] = copy, ""

    def queued(self) -> list[Copy]:
        return [self.copies[number] for number, holder in self.holders.items() if not holder]

    def held_by(self, identity: str) -> list[int]:
        return [number for number, holder in self.holders.items() if holder == identity]

    def ack(self, number: int, identity: str) -> bool:
        """Remove a copy if this identity holds it; tells whether it did."""
        if self.holders.get(number) != identity:
            return False
        del self.copies[number], self.holders[number]
        return True

    def requeue(self, identity: str) -> None:
        for number in self.held_by(identity):
            self.holders[number] = ""

    def saved(self) -> Broker:
        return copying.deepcopy(self)


@dataclass(eq=False, slots=True)
class Run:
    """A copy inside a process, from its delivery to its settlement."""

    caller: str
    copy: Copy
    nonce: bytes
    phase: Phase = "fetched"
    fence: int = 0
    #: The fence of a grant whose reply was lost: known to the judge, not to the worker.
    unheard: int = 0
    #: How it is being closed, while that call has to be repeated.
    closing: str = ""
    #: It repeated a call or lived through a loss of the store's data: it settles unconfirmed (R5).
    doubtful: bool = False
    #: The store's server was replaced during the run.
    outlived: bool = False
    connected: bool = True

    @property
    def task(self) -> str:
        return self.copy.task

    def granted(self) -> int:
        """The fence under which the store believes this run to run."""
        return self.fence or self.unheard


@dataclass(eq=False, slots=True)
class Process:
    """A worker process. `snapshot` is a beat on its way: identity, its number, local runs by shard."""

    slot: int
    identity: str
    runs: list[Run] = field(default_factory=list)
    unsettled: list[Settled] = field(default_factory=list)
    suspect_slot: Run | None = None
    snapshot: tuple[str, int, dict[int, list[tuple[str, int]]]] | None = None

    def local(self, shard_of: dict[str, int]) -> dict[int, list[tuple[str, int]]]:
        """Return what this process believes to run or has not settled, by shard."""
        view: dict[int, list[tuple[str, int]]] = {shard: [] for shard in SHARDS}
        for run in self.runs:
            if run.phase in LOCAL and run.caller == self.identity:
                view[shard_of[run.task]].append((run.task, run.fence if run.phase in ("running", "close?") else 0))
        for item in self.unsettled:
            view[item.shard].append((item.task_id, item.fence))
        return view

    def drop(self, run: Run) -> None:
        self.runs.remove(run)
        self.free_slot(run)

    def free_slot(self, run: Run) -> None:
        if self.suspect_slot is run:
            self.suspect_slot = None


@dataclass(slots=True)
class Ledger:
    """What surviving history says of one task."""

    sending: Sending
    #: It reached an end at least once, even in a history that was rolled back.
    once_ended: bool = False
    #: Its hooks ran at least once since its last grant.
    hooks_ran: bool = False
    #: Its end was accepted with hooks to run, in surviving history.
    hooks_owed: bool = False
    #: Accepted completions in surviving history.
    completions: int = 0
    #: When (µs) it had died when somebody last looked at it as a dead letter; 0: never, or it was none.
    looked: int = 0
    #: What an export of it was, in surviving history.
    exported: Entry | None = None


@dataclass(slots=True)
class World:
    """All that is outside of the store."""

    kind: Kind
    broker: Broker = field(default_factory=Broker)
    processes: list[Process] = field(default_factory=list)
    tasks: dict[str, Ledger] = field(default_factory=dict)
    identities: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 1_000_000)))

    @property
    def shard_of(self) -> dict[str, int]:
        return {task_id: ledger.sending.shard for task_id, ledger in self.tasks.items()}

    @property
    def same_server(self) -> bool:
        """The store and the broker lose data together."""
        return self.kind == "one redis"

    @property
    def amqp(self) -> bool:
        """Messages return when a connection ends, and no acknowledgement is ever confirmed."""
        return self.kind == "amqp"

    def disconnect(self, process: Process) -> None:
        for identity in {process.identity, *(run.caller for run in process.runs)}:
            self.broker.requeue(identity)

    def runs(self, *phases: str) -> list[tuple[Process, Run]]:
        return [(p, run) for p in self.processes for run in p.runs if run.phase in phases]

    def unended(self) -> list[str]:
        return [task_id for task_id, ledger in self.tasks.items() if not ledger.once_ended]

    def living(self) -> set[str]:
        return {p.identity for p in self.processes}
