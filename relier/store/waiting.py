"""Counts the tasks that wait in the store, by queue: for people. Nothing in here decides or changes anything."""

from __future__ import annotations

from dataclasses import dataclass, field

from relier.store.calls import BATCH, decode
from relier.store.keys import SHARDS
from relier.store.records import AWAITS_KEY
from relier.store.scripts import script
from relier.store.store import Store
from relier.store.survey import PARKED


@dataclass(slots=True)
class Waiting:
    """The tasks of one queue that wait in the store."""

    due: int = 0  #: their time has come, or they wait for something else: somebody who can run them, say
    scheduled: int = 0  #: their time has not come
    published: int = 0  #: the broker has a copy
    oldest: float = 0.0  #: when the oldest of those that are due was created, in seconds since the epoch; 0: none is
    reasons: dict[str, int] = field(default_factory=dict)  #: what they wait for other than their time

    def add(self, reason: str, is_due: bool, published: bool, count: int, created: float) -> None:
        waits_for_something = reason in PARKED or reason == AWAITS_KEY
        if waits_for_something or (is_due and not published):
            self.due += count
            self.oldest = min(self.oldest or created, created)
        elif published:
            self.published += count
        else:
            self.scheduled += count
        if waits_for_something:
            self.reasons[reason] = self.reasons.get(reason, 0) + count


def waiting_by_queue(store: Store) -> dict[str, Waiting]:
    """Look through the due index of every shard, a page of each in one round trip."""
    found: dict[str, Waiting] = {}
    at = dict.fromkeys(range(SHARDS), 0)
    while at:
        calls = [(script("waiting"), store.keys.shard(s, ""), ("", first, BATCH)) for s, first in at.items()]
        replies = zip(list(at), store.runner.run_many(calls), strict=True)
        for shard, (seen, flat) in replies:
            for i in range(0, len(flat), 6):
                queue, reason, due, published, count, created = flat[i : i + 6]
                of_queue = found.setdefault(decode(queue), Waiting())
                of_queue.add(decode(reason), due == b"1", published == b"1", int(count), int(created) / 1e6)
            if seen < BATCH:
                del at[shard]
            else:
                at[shard] += seen
    return found
