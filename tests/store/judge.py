"""The judge: looks at the store after each call, and says what must be true of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import redis
from hypothesis.stateful import RuleBasedStateMachine

from relier.store import Due, Store
from tests.store.look import Look, inconsistencies, look
from tests.store.world import LOCAL, SHARDS, Broker, Kind, Ledger, Process, Run, World

START = 1_763_600_000_123_456
RETENTION = 3600.0


@dataclass(frozen=True, slots=True)
class Saved:
    """What a crash of the store's server brings back."""

    keys: dict[Any, Any]
    broker: Broker
    tasks: dict[str, Ledger]
    parted: set[str]


class Judge(RuleBasedStateMachine):
    """Holds the store and the world around it, and judges after each call."""

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.broken = False

    def set_up(self, kind: Kind) -> None:
        self.client.flushall()
        self.store = Store(self.client, "machine", RETENTION)
        self.tasks = self.store.tasks
        self.clock = START
        self.tasks.watched.clock = lambda: 0.0  # A copy that outlives the retention may run again: not in here.
        self.earliest = 0
        self.world = World(kind)
        self.seen = Look(floors=dict.fromkeys(SHARDS, 0), dead={shard: set() for shard in SHARDS})
        self.saved: Saved | None = None
        self.parted: set[str] = set()
        self.peeked: list[Due] = []
        self.burials: dict[str, set[int]] = {}
        self.late: list[Callable[[], object]] = []
        for slot in range(2):
            self.world.processes.append(Process(slot, self.register()))

    @property
    def clock(self) -> int:
        assert self.tasks.clock is not None
        return self.tasks.clock

    @clock.setter
    def clock(self, now: int) -> None:
        self.tasks.clock = now

    def check(self, holds: object, problem: str) -> None:
        if not holds:
            self.broken = True
            raise AssertionError(problem)

    def register(self) -> str:
        identity = f"w{len(self.world.identities)}"
        self.world.identities.append(identity)
        self.check(self.store.fleet.register(identity, {}), "a fresh identity was refused")
        self.durable()  # A worker fetches only after its registration is durable.
        return identity

    def owed(self) -> set[str]:
        """Return the dead to whom something is owed."""
        return set(self.store.fleet.observe().obligations)

    def durable(self) -> None:
        """Wait until what was acknowledged is on disk: no older state comes back."""
        self.saved = None

    def judge(self, what: str, touched: Iterable[str] = (), own: Run | None = None) -> None:
        """Look at the store after a call that may have changed only `touched`, in the name of the run `own`."""
        before, self.seen = self.seen, look(self.store, SHARDS, self.world.identities)
        problems = inconsistencies(self.seen) + self._stolen(before, own) + self._ended_twice(before, own)
        problems += (
            self._unfair(before, set(touched)) + self._row_changed(before, what) + self._lost() + self._two_suspects()
        )
        self.check(not problems, f"after {what}: " + "; ".join(problems))

    def _unfair(self, before: Look, touched: set[str]) -> list[str]:
        """Changes of what was none of the call's business, and fences that do not rise."""
        found = []
        for task_id, was in before.records.items():
            now = self.seen.records.get(task_id)
            if task_id not in touched and (now is None or now.packed != was.packed):
                found.append(f"{task_id} changed from {was} to {now}")
            if now is not None and now.fence < was.fence:
                found.append(f"{task_id}'s fence fell: {was.fence} to {now.fence}")
            if was.state == "h" and (now is None or now.state in "ed") and not self.world.tasks[task_id].hooks_ran:
                found.append(f"{task_id}'s hooks were lost")
        found += [f"{task_id} was forgotten" for task_id in before.remembered - self.seen.remembered - touched]
        for shard, floor in before.floors.items():
            if self.seen.floors.get(shard, 0) < floor:
                found.append(f"the floor of shard {shard} fell")
        for task_id, now in self.seen.records.items():
            shard = self.world.tasks[task_id].sending.shard
            if now.fence > self.seen.floors.get(shard, 0):
                found.append(f"{task_id}'s fence is above its shard's floor")
            if now.owner in self.seen.dead[shard] and now.owner not in self.owed():
                found.append(f"{task_id} belongs to {now.owner}, to whom nothing is owed")
        return found

    def _row_changed(self, before: Look, what: str) -> list[str]:
        """Only failures and releases change how many identical failures a task has had in a row."""
        if what.startswith(("retry", "dead", "release")):
            return []
        both = [(was, now) for task_id, was in before.records.items() if (now := self.seen.records.get(task_id))]
        changed = [(was, now) for was, now in both if was.state != "e" and now.state != "e"]
        rows = [((was.fingerprint, was.identical), (now.fingerprint, now.identical)) for was, now in changed]
        return [f"a row changed from {was} to {now}" for was, now in rows if was != now]

    def _stolen(self, before: Look, own: Run | None) -> list[str]:
        """Runs taken from a living worker that was never declared dead. Data loss may take what a lost history gave."""
        found = []
        for process, run in self.world.runs(*LOCAL):
            was, now = before.records.get(run.task), self.seen.records.get(run.task)
            if run is own or run.outlived or run.caller != process.identity or run.caller in self.parted or not was:
                continue
            held = was.state in "rh" and (was.owner, was.fence) == (run.caller, run.granted())
            if held and (not now or (now.state, now.owner, now.fence) != (was.state, was.owner, was.fence)):
                found.append(f"{run.task} was stolen from {run.caller}: {was} is now {now}")
        return found

    def _ended_twice(self, before: Look, own: Run | None) -> list[str]:
        completed = self.seen.counters.get("completed", 0) - before.counters.get("completed", 0)
        for task_id, record in self.seen.records.items():
            self.world.tasks[task_id].once_ended |= record.state in "hed"
        if not completed:
            return []
        if own is None or completed > 1:
            return [f"{completed} completions by nobody"]
        task = self.world.tasks[own.task]
        task.once_ended = True
        task.completions += 1
        return [f"{own.task} completed {task.completions} times"] if task.completions > 1 else []

    def _lost(self) -> list[str]:
        there = set(self.seen.records) | {copy.task for copy in self.world.broker.copies.values()}
        return [f"{t} is lost" for t, ledger in self.world.tasks.items() if not ledger.once_ended and t not in there]

    def _two_suspects(self) -> list[str]:
        found = []
        for process in self.world.processes:
            # By task: a run of its former identity may still be there, beside the one that the task has now.
            tasks = {run.task for run in process.runs if run.phase in ("running", "close?")}
            records = [self.seen.records.get(task) for task in tasks]
            if sum(r is not None and r.suspect and r.owner == process.identity and r.state == "r" for r in records) > 1:
                found.append(f"{process.identity} runs two suspects")
        return found
