"""Reads the store for people and tools. Nothing in here decides or changes anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from relier.store.calls import BATCH
from relier.store.holds import ACTOR_PARKED, PAUSED
from relier.store.keys import CLOCKS, SHARDS
from relier.store.records import status_of
from relier.store.scripts import script
from relier.store.store import Store

#: About how many records one page has.
PAGE = 100

#: Among how many records ids are searched by their beginning.
SEARCHED = 1_000_000

#: How the score of an id ends that is only a mark: somebody cancelled a task that may come to its shard.
MARK = ".5"

#: The reason of a task that is not published because no worker consumes its queue.
NO_CONSUMER = "no consumer"
#: The reason of one that is not published because no worker has its actor.
UNKNOWN_ACTOR = "unknown actor"
#: The reason of one that is not published because its payload is newer than every worker's code.
NEWER_VERSION = "newer version"
#: Every reason for which a task is parked.
PARKED = (NO_CONSUMER, UNKNOWN_ACTOR, NEWER_VERSION, PAUSED, ACTOR_PARKED)


@dataclass(frozen=True, slots=True)
class Summary:
    """One task's record without its body. Times are seconds since the epoch on the server's clock; 0 means none."""

    task_id: str
    shard: int
    state: str
    outcome: str = ""
    reason: str = ""
    queue: str = ""
    actor: str = ""
    owner: str = ""
    attempt: int = 0
    crashes: int = 0
    published: int = 0
    created_at: float = 0.0
    granted_at: float = 0.0
    due_at: float = 0.0
    payload_version: int = 1
    #: Whether the due index, its owner's set or the DLQ has it, so that something will move it on.
    moves_on: bool = True

    def status(self, now: float) -> str:
        """The word for its state at the server's time `now`: `due` is what waits for the sweep, not for its time."""
        if self.state == "s" and (self.reason in PARKED or 0 < self.due_at <= now):
            return "due"
        return status_of(self.state, self.outcome, self.published, self.reason)

    @property
    def ended(self) -> bool:
        return self.state not in ("s", "r")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _seconds(micros: Any) -> float:
    return float(micros or 0) / 1e6


def summary_of(shard: int, reply: list[Any]) -> Summary:
    """Return what a script told of a task: its id alone when it ended and has no record any more."""
    if len(reply) == 1:
        return Summary(_text(reply[0]), shard, "e", "completed")
    if len(reply) == 2:
        return Summary(_text(reply[0]), shard, _text(reply[1]))
    task_id, state, outcome, reason, queue, actor, owner = map(_text, reply[:7])
    return Summary(
        task_id,
        shard,
        state,
        outcome,
        reason,
        queue,
        actor,
        owner,
        attempt=int(reply[7]),
        crashes=int(reply[8]),
        published=int(reply[9]),
        created_at=_seconds(reply[10]),
        granted_at=_seconds(reply[11]),
        due_at=_seconds(reply[12]),
        moves_on=reply[13] == b"1",
        payload_version=int(reply[14]),
    )


class Survey:
    """A look at one store from outside."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._runner = store.runner

    def now(self) -> float:
        """Return the server's time in seconds since the epoch."""
        seconds, micros = self._runner.command("TIME")
        return int(seconds) + int(micros) / 1e6

    def shard(self, shard: int) -> dict[str, Summary]:
        """Return every record of a shard, by task id; without blocking the server, so not of one moment.

        Ended tasks of which only the id is kept are among them.
        """
        found = {task_id: Summary(task_id, shard, "e", "completed") for task_id in self._remembered(shard)}
        cursor: Any = "0"
        while True:
            cursor, page = self._runner.run(script("page"), self._store.keys.shard(shard, ""), ("", cursor, PAGE))
            for reply in page:
                summary = summary_of(shard, reply)
                found[summary.task_id] = summary
            if cursor in (b"0", "0"):
                return found

    def some(self, places: Iterable[tuple[str, int]]) -> dict[str, Summary]:
        """Return those of some tasks, given with their shards, that have a record; in one round trip."""
        by_shard: dict[int, list[str]] = {}
        for task_id, shard in places:
            by_shard.setdefault(shard, []).append(task_id)
        pieces = [(shard, ids[i : i + BATCH]) for shard, ids in by_shard.items() for i in range(0, len(ids), BATCH)]
        calls = [(script("glance"), self._store.keys.shard(shard, ""), ("", *ids)) for shard, ids in pieces]
        replies = self._runner.run_many(calls) if calls else []
        found = [summary_of(shard, row) for (shard, _), rows in zip(pieces, replies, strict=True) for row in rows]
        return {summary.task_id: summary for summary in found}

    def beginning_with(self, text: str) -> dict[str, int]:
        """Return the tasks with a record whose ids begin so, with their shards: some, when they are many.

        It looks at every id, page by page: none is found when there are more than `SEARCHED`.
        """
        keys = {shard: self._store.keys.shard(shard, "")[0] for shard in range(SHARDS)}
        if sum(self._runner.commands(("HLEN", key) for key in keys.values())) > SEARCHED:
            return {}
        pattern = "".join(f"\\{char}" if char in "*?[]^\\" else char for char in text) + "*"
        found: dict[str, int] = {}
        cursors: dict[int, Any] = dict.fromkeys(keys, "0")
        while cursors and len(found) < PAGE:
            scans = [
                ("HSCAN", keys[shard], cursor, "MATCH", pattern, "COUNT", 200) for shard, cursor in cursors.items()
            ]
            pages = dict(zip(cursors, self._runner.commands(scans), strict=True))
            for shard, (_, page) in pages.items():
                found.update((_text(task_id), shard) for task_id in page[::2])
            cursors = {shard: cursor for shard, (cursor, _) in pages.items() if cursor not in (b"0", "0")}
        return found

    def owned_by(self, workers: Iterable[str]) -> list[tuple[str, int]]:
        """Return the tasks that workers own, with their shards: those that run and those whose hooks do."""
        keys = [(self._store.keys.shard(shard, worker)[-1], shard) for worker in workers for shard in range(SHARDS)]
        pages = self._runner.commands(("ZRANGE", key, 0, -1) for key, _ in keys) if keys else []
        return [(_text(task_id), shard) for (_, shard), page in zip(keys, pages, strict=True) for task_id in page]

    def _remembered(self, shard: int) -> Iterator[str]:
        cursor: Any = "0"
        while True:
            key = self._store.keys.shard(shard, "")[6]
            cursor, flat = self._runner.command("ZSCAN", key, cursor, "COUNT", PAGE)
            pairs = zip(flat[::2], flat[1::2], strict=True)
            yield from (_text(task_id) for task_id, score in pairs if not _text(score).endswith(MARK))
            if cursor in (b"0", "0"):
                return

    def all(self) -> Iterator[Summary]:
        """Iterate over every record, shard by shard."""
        for shard in range(SHARDS):
            yield from self.shard(shard).values()

    def counters(self, shard: int) -> dict[str, int]:
        """Return the counters of one shard."""
        flat = self._runner.command("HGETALL", self._store.keys.shard(shard, "")[2])
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        return {_text(name): int(value) for name, value in pairs if name not in CLOCKS}

    def dead_letters(self, shard: int) -> int:
        """Return how many dead letters the shard's DLQ has."""
        return int(self._runner.command("ZCARD", self._store.keys.shard(shard, "")[5]))

    def locate(self, task_id: str) -> int | None:
        """Return the shard that knows of a task."""
        known = self._store.known(task_id)
        return known.shard if known.state else None

    def dead_lettered_at(self, task_id: str, shard: int) -> float:
        """Return when a task became a dead letter; 0 when it is none."""
        return _seconds(self._runner.command("ZSCORE", self._store.keys.shard(shard, "")[5], task_id))

    def events_of(self, task_id: str, shard: int) -> list[dict[str, str]]:
        """Return what the stream of abnormal events still has of a task, oldest first."""
        entries = self._runner.command("XRANGE", self._store.keys.shard(shard, "")[4], "-", "+")
        found = []
        for _, flat in entries:
            pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
            event = {_text(name): _text(value) for name, value in pairs}
            if event.get("task") == task_id:
                found.append(event)
        return found

    def owned(self, workers: Iterable[str]) -> dict[str, int]:
        """Return how many tasks each worker owns: those that run and those whose hooks do."""
        names = list(workers)
        keys = [self._store.keys.shard(shard, worker)[-1] for worker in names for shard in range(SHARDS)]
        counts = self._runner.commands(("ZCARD", key) for key in keys) if keys else []
        return {worker: sum(counts[i * SHARDS : (i + 1) * SHARDS]) for i, worker in enumerate(names)}

    def recorded_format(self) -> tuple[int, int] | None:
        """Return the format version and the number of shards that the store was begun with; None before that."""
        version, shards = self._runner.command("HMGET", self._store.keys.fleet[5], "format", "shards")
        return None if version is None else (int(version), int(shards or 0))
