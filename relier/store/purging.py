"""Purge marks, and the end of tasks that they concern: what waits in the store, and what was found in a broker."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from relier.store.calls import Calls, decode, flag, micros
from relier.store.connection import Argument, ScriptCall
from relier.store.keys import SHARDS

#: How long (s) a mark is kept: longer than any copy may wait in a queue, or in the hands of a worker that was stopped.
KEPT = 30 * 86_400.0
#: Most marks that are kept: each is asked for at every claim.
MOST = 200
#: Most tasks that one script ends, and scripts in one round trip: Redis serves nobody else meanwhile.
PAGE, TOGETHER = 50, 4
#: Whom a purge of everything concerns.
EVERYTHING = "*"


class TooManyMarksError(Exception):
    """There are `MOST` marks already."""


class Judgement(StrEnum):
    """What became of the task of a copy that a purge found in a broker."""

    PURGED = "purged"  #: it has ended now
    ENDED = "ended"  #: it had ended before; the copy is of no use
    KEPT = "kept"  #: the copy stays where it is


@dataclass(frozen=True, slots=True)
class Purge:
    """One purge. Times are seconds since the epoch on the server's clock.

    Parameters:
      concerns: names of whom it concerns, by `concerning`.
      at: what was enqueued before this time is purged; a whole second, as records keep theirs.
      written: when it began; whatever was released since then is exempt.
      who: asked for it.
    """

    concerns: tuple[str, ...]
    at: int
    written: float
    who: str

    def covers(self, queue: str, actor: str) -> bool:
        """Whether it concerns the tasks of an actor in a queue."""
        names = (EVERYTHING, concerning(queue, ""), concerning("", actor), concerning(queue, actor))
        return not {*names}.isdisjoint(self.concerns)


@dataclass(frozen=True, slots=True)
class Copy:
    """What a copy in a broker says of its task."""

    task_id: str
    shard: int
    fence: int
    queue: str
    actor: str
    created: float  #: seconds; 0: unknown


def concerning(queue: str, actor: str) -> str:
    """Return the name of whom a mark concerns: a queue, an actor, both, or everything."""
    if queue and actor:
        return f"b\n{queue}\n{actor}"
    return f"q\n{queue}" if queue else f"a\n{actor}" if actor else EVERYTHING


class Purges(Calls):
    """Purges of one namespace. Each call may be repeated."""

    def mark(self, purge: Purge) -> None:
        """Let every claim from now on refuse what the purge concerns. Raises `TooManyMarksError`."""
        args: tuple[Argument, ...] = (purge.at * 1_000_000, micros(KEPT), MOST, purge.who, *purge.concerns)
        calls = [self._by_hand("purge_mark", shard, *args) for shard in range(SHARDS)]
        for reply in self._runner.run_many(calls):
            if int(reply) < 0:
                raise TooManyMarksError(f"{MOST} purge marks are kept already.")

    def copies(self, purge: Purge, copies: Sequence[Copy], *, only_tell: bool = False) -> list[Judgement]:
        """End the tasks of copies that were found in a broker; returns what became of each."""
        by_shard: dict[int, list[int]] = {}
        for number, copy in enumerate(copies):
            by_shard.setdefault(copy.shard, []).append(number)
        pieces = [(s, numbers[i : i + PAGE]) for s, numbers in by_shard.items() for i in range(0, len(numbers), PAGE)]
        calls = [self._copies_call(purge, shard, [copies[n] for n in numbers], only_tell) for shard, numbers in pieces]
        found = [Judgement.KEPT] * len(copies)
        for (_, numbers), replies in zip(pieces, self._run_some(calls), strict=True):
            for number, reply in zip(numbers, replies, strict=True):
                found[number] = Judgement(decode(reply))
        return found

    def _copies_call(self, purge: Purge, shard: int, copies: Iterable[Copy], only_tell: bool) -> ScriptCall:
        told: list[Argument] = []
        for c in copies:
            told += (c.task_id, c.fence, c.queue, c.actor, micros(c.created))
        return self._by_hand("purge_copies", shard, *self._terms(purge, only_tell), *told)

    def waiting(self, purge: Purge, *, only_tell: bool = False) -> Iterator[list[str]]:
        """End the tasks that wait in the store, a page of every shard at a time; yields the ids of each."""
        cursors: dict[int, bytes | str] = dict.fromkeys(range(SHARDS), "0")
        while cursors:
            terms = self._terms(purge, only_tell)
            calls = [self._by_hand("purge_waiting", s, *terms, cursor, PAGE) for s, cursor in cursors.items()]
            replies = dict(zip(cursors, self._run_some(calls), strict=True))
            yield [decode(task_id) for _, ids in replies.values() for task_id in ids]
            cursors = {s: cursor for s, (cursor, _) in replies.items() if cursor not in (b"0", "0")}

    def _run_some(self, calls: Sequence[ScriptCall]) -> Iterator[Any]:
        for i in range(0, len(calls), TOGETHER):
            yield from self._runner.run_many(calls[i : i + TOGETHER])

    def _terms(self, purge: Purge, only_tell: bool) -> tuple[Argument, ...]:
        at, written = purge.at * 1_000_000, micros(purge.written)
        return at, self._keep, flag(only_tell), json.dumps(purge.concerns), written

    def marks(self) -> int:
        """Return how many marks there are."""
        replies = self._runner.commands(("HLEN", self._keys.marks(shard)) for shard in range(SHARDS))
        return max(map(int, replies))
