"""Finds the newest tasks of a kind, and counts all by status: the store looks through its records, for people."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from relier.store.calls import decode
from relier.store.keys import SHARDS
from relier.store.records import AWAITS_KEY, PUSHED
from relier.store.scripts import script
from relier.store.store import Store
from relier.store.survey import PARKED, Summary, summary_of

#: How many shards are asked in one round trip: Redis answers nobody else in between.
TOGETHER = 2
#: About how many records one page has: each costs Redis up to 50 µs.
PAGE = 50


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tasks are wanted; what is None does not matter. `since`: seconds since the epoch."""

    status: str | None = None
    actor: str | None = None
    queue: str | None = None
    reason: str | None = None
    since: int | None = None

    def told(self, floor: Summary | None) -> str:
        """Return this as the script takes it; `floor`: the last task of those that are known to be newer."""
        values = {name: getattr(self, name) for name in ("status", "actor", "queue", "reason", "since")}
        told: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        if floor is not None:
            told["floor"] = [*(round(moment * 1e6) for moment in _age(floor)[:3]), floor.task_id]
        return json.dumps({**told, "parked": PARKED, "queued": (AWAITS_KEY, PUSHED)})


@dataclass(slots=True)
class Selected:
    """What was found, while tasks come and go: about right."""

    #: The newest first.
    tasks: list[Summary] = field(default_factory=list)
    #: Of every task, whatever is wanted.
    by_status: Counter[str] = field(default_factory=Counter)
    queues: set[str] = field(default_factory=set)
    actors: set[str] = field(default_factory=set)


def select(store: Store, wanted: Wanted, limit: int) -> Selected:
    """Return the newest `limit` tasks of those that are wanted, and the counts of all.

    It reads every record where it is, a page at a time; only what may be among the newest is sent.
    """
    found = Selected()
    ahead = [(shard, kind) for shard in range(SHARDS) for kind in ("records", "ended")]
    at: dict[tuple[int, str], Any] = {}
    while ahead or at:
        while ahead and len(at) < TOGETHER:
            at[ahead.pop(0)] = "0"
        told = wanted.told(found.tasks[-1] if len(found.tasks) == limit else None)
        calls = [
            (script("select"), store.keys.shard(shard, ""), ("", kind, cursor, PAGE, told))
            for (shard, kind), cursor in at.items()
        ]
        for (shard, kind), (cursor, *page) in zip(list(at), store.runner.run_many(calls), strict=True):
            _add(found, shard, page)
            if cursor in (b"0", "0"):
                del at[shard, kind]
            else:
                at[shard, kind] = cursor
        found.tasks = heapq.nlargest(limit, found.tasks, key=_age)
    return found


def _add(found: Selected, shard: int, page: list[Any]) -> None:
    counts, queues, actors, rows = page
    known = {task.task_id for task in found.tasks}
    for status, number in zip(counts[::2], counts[1::2], strict=True):
        found.by_status[decode(status)] += int(number)
    found.queues |= set(map(decode, queues)) - {""}
    found.actors |= set(map(decode, actors)) - {""}
    tasks = (summary_of(shard, row) for row in rows)
    found.tasks += [task for task in tasks if task.task_id not in known]


def _age(task: Summary) -> tuple[float, float, float, str]:
    return task.created_at, task.granted_at, task.due_at, task.task_id
