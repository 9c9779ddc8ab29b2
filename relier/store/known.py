"""What the store knows of one task, for whoever waits for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from relier.store.connection import ScriptRunner
from relier.store.keys import SHARDS, Keys, shard_of
from relier.store.records import status_of
from relier.store.scripts import script


@dataclass(frozen=True, slots=True)
class Known:
    """One look at a task. Everything but `shard` and `floor` is empty when nothing is known of it."""

    shard: int
    state: str = ""
    outcome: str = ""
    published: int = 0
    reason: str = ""
    actor: str = ""
    failure: bytes = b""  #: of a dead letter, when asked for
    kept: bytes = b""  #: what is kept of the result (see `relier.results`), when asked for
    floor: int = 0  #: no task of the shard was claimed later than this (µs since the epoch, on the server's clock)

    @property
    def status(self) -> str:
        """The word of `TaskReceipt.status()`; empty when nothing is known."""
        return status_of(self.state, self.outcome, self.published, self.reason) if self.state else ""

    @property
    def is_mark(self) -> bool:
        """Whether somebody cancelled a task of which nothing was known: it may be in another shard."""
        return self.outcome == "discarded" and not self.actor


def known(runner: ScriptRunner, keys: Keys, task_id: str, shard: int | None, *, result: bool = False) -> Known:
    """Look at a task, with its result or failure if that is asked for.

    `shard`: where the task is. Without it, where its id says; when nothing but a mark is there, in all the others, with
    one more round trip: an idempotent task is where its key says.
    """
    if shard is not None:
        return _look(runner, keys, task_id, [shard], result)[0]
    first = _look(runner, keys, task_id, [shard_of(task_id)], result)[0]
    if first.state and not first.is_mark:
        return first
    others = (other for other in range(SHARDS) if other != first.shard)
    found = _look(runner, keys, task_id, others, result)
    return next((known for known in found if known.state and not known.is_mark), first)


def _look(runner: ScriptRunner, keys: Keys, task_id: str, shards: Iterable[int], result: bool) -> list[Known]:
    where, wanted = list(shards), "1" if result else "0"
    calls = [(script("known"), keys.shard(shard, ""), ("", task_id, wanted)) for shard in where]
    replies = runner.run_many(calls)
    return [_parsed(shard, reply) for shard, reply in zip(where, replies, strict=True)]


def _parsed(shard: int, reply: Sequence[Any]) -> Known:
    state, outcome, published, reason, actor, failure, kept, floor = reply
    return Known(
        shard, state.decode(), outcome.decode(), int(published), _text(reason), _text(actor), failure, kept, int(floor)
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
