"""What a sweeper asks of the tasks: to bury the dead, to list what is due, to park what nobody can run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from relier.store.calls import BATCH, Calls, decode, micros
from relier.store.keys import SHARDS
from relier.store.scripts import script
from relier.store.verdicts import Burial, Due, Lot, Parking, Suspicion

#: Most bytes of message bodies that one listing of due records returns.
DUE_BYTES = 4 * 2**20


class SweeperCalls(Calls):
    """The sweeper's operations."""

    def bury(self, worker: str, shards: Sequence[int], how: str) -> dict[int, Burial]:
        """Bury a dead worker in the given shards, at most `BATCH` tasks in each."""
        calls = [(script("bury"), self._keys.shard(s, worker), (self.now(), worker, how, BATCH)) for s in shards]
        return dict(zip(shards, map(_burial, self._runner.run_many(calls)), strict=True))

    def due(self, shards: Sequence[int], limit: int) -> tuple[int, list[Due]]:
        """List what is due in the given shards: how many in all, and up to `limit` a shard.

        Where tasks are left that wait for a free idempotency key, one more is counted.
        """
        calls = [
            (
                script("due"),
                self._keys.shard(s, ""),
                (self.now(), min(limit, BATCH), DUE_BYTES, *self.watched.since(s)),
            )
            for s in shards
        ]
        total, records = 0, []
        for shard, (count, flat, age, counted) in zip(shards, self._runner.run_many(calls), strict=True):
            total += count
            self.watched.note(shard, int(age), bool(counted))
            records += [_due(shard, flat[i : i + 10]) for i in range(0, len(flat), 10)]
        return total, records

    def mark_published(self, published: Iterable[Due], grace: float, longest: float) -> None:
        """Note for each record that a copy was published."""
        marks = ((due.shard, (due.task_id, due.fence)) for due in published)
        self._by_shard("mark_published", marks, micros(grace), micros(longest))

    def park(self, held: Iterable[tuple[Due, Parking]], longest: float) -> set[str]:
        """Park records that no living worker can run; returns the ids of those that became dead letters instead.

        After `longest` seconds a record is due all the same.
        """
        parked = (
            (due.shard, (due.task_id, due.fence, why.reason, micros(why.grace) if why.failure else "", why.failure))
            for due, why in held
        )
        replies = self._by_shard("park", parked, micros(longest))
        return {decode(task_id) for reply in replies for task_id in reply}

    def expire_letters(self, shards: Sequence[int], retention: float) -> dict[int, int]:
        """Discard at most `BATCH` dead letters of each shard that are older than so many seconds; returns how many."""
        calls = [
            (script("expire_letters"), self._keys.shard(s, ""), (self.now(), micros(retention), self._keep, BATCH))
            for s in shards
        ]
        replies = self._runner.run_many(calls) if calls else []
        return dict(zip(shards, map(int, replies), strict=True))

    def count_letters(self) -> int:
        """Return how many dead letters there are in all shards."""
        return sum(map(int, self._runner.commands(("ZCARD", self._keys.shard(s, "")[5]) for s in range(SHARDS))))

    def lots(self, shards: Sequence[int]) -> list[Lot]:
        """Return the lots in which tasks of these shards are parked."""
        replies = self._runner.commands(("SMEMBERS", self._keys.lots(shard)) for shard in shards)
        return [Lot.of(shard, decode(lot)) for shard, lots in zip(shards, replies, strict=True) for lot in lots]

    def unpark(self, lot: Lot) -> int:
        """Let at most `BATCH` tasks out of a lot; returns how many are left in it."""
        return int(self._run("unpark", lot.shard, "", lot.name, BATCH))


def _due(shard: int, flat: Sequence[Any]) -> Due:
    return Due(
        task_id=decode(flat[0]),
        shard=shard,
        fence=int(flat[1]),
        state=decode(flat[2]),
        suspicion=Suspicion(int(flat[3])),
        crashes=int(flat[4]),
        published=int(flat[5]),
        queue=decode(flat[6]),
        actor=decode(flat[7]),
        payload_version=int(flat[8]),
        body=flat[9],
    )


def _burial(reply: list[Any]) -> Burial:
    told = iter(reply[3])
    letters = tuple(
        (decode(i), decode(a), decode(q), int(n)) for i, a, q, n in zip(told, told, told, told, strict=True)
    )
    put_back, dead_lettered, left = map(int, reply[:3])
    return Burial(put_back, dead_lettered, left, letters)
