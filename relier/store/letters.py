"""Dead letters, many at once: what there is, releasing them, discarding them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from relier.store.calls import Calls, decode, micros
from relier.store.connection import ScriptCall
from relier.store.custody_calls import MARK_KEPT
from relier.store.keys import SHARDS

#: How many letters one page of a shard has: about a millisecond of the server's time.
PAGE = 250
#: Most letters that one script changes: records with tracebacks are large, and Redis does nothing else meanwhile.
BATCH = 50
#: How long (s) the two times are that tell the trend of a group.
TREND = 3600.0


class Place(NamedTuple):
    """One dead letter: which task, where, and when (µs since the epoch, server's clock) it died."""

    died: int
    shard: int
    task_id: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters are meant: those that fit everything that is given.

    Parameters:
      actor, queue, reason: must be equal.
      fingerprint: must begin so.
      since, until: when the letter died, in seconds since the epoch on the server's clock.
    """

    actor: str | None = None
    queue: str | None = None
    reason: str | None = None
    fingerprint: str | None = None
    since: float = 0.0
    until: float | None = None

    @property
    def everything(self) -> bool:
        return all(getattr(self, field.name) in (None, 0.0) for field in fields(self))

    def names(self) -> dict[str, str]:
        """Return what a letter's summary must have."""
        given = {name: getattr(self, name) for name in ("actor", "queue", "reason", "fingerprint")}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Letter:
    """What is told of a dead letter in lists. Times are seconds since the epoch on the server's clock."""

    task_id: str
    shard: int
    died_at: float
    actor: str
    queue: str
    reason: str
    fingerprint: str
    attempts: int
    crashes: int
    payload_version: int
    message: str
    created_at: float


@dataclass(slots=True)
class Group:
    """Dead letters with one fingerprint; those without one: of one actor and reason."""

    fingerprint: str
    actor: str
    reason: str
    count: int
    first_seen: float
    last_seen: float
    #: How many died within the last hour, and within the one before it.
    last_hour: int
    hour_before: int
    #: The last one.
    sample_id: str
    sample_message: str

    @property
    def trend(self) -> str:
        """Whether it gets worse: rising, falling, steady, or quiet when none died within two hours."""
        if not self.last_hour and not self.hour_before:
            return "quiet"
        if self.last_hour == self.hour_before:
            return "steady"
        return "rising" if self.last_hour > self.hour_before else "falling"

    def add(self, other: Group) -> None:
        if other.last_seen > self.last_seen:
            self.last_seen, self.sample_id, self.sample_message = other.last_seen, other.sample_id, other.sample_message
        self.first_seen = min(self.first_seen, other.first_seen)
        self.count += other.count
        self.last_hour += other.last_hour
        self.hour_before += other.hour_before


class Planned(NamedTuple):
    """Dead letters that would run as the same thing."""

    actor: str
    queue: str
    payload_version: int
    letters: int


class Letters(Calls):
    """The DLQ of one namespace. Reading is not of one moment: what comes or goes meanwhile is told, or not."""

    def count(self) -> int:
        """Return how many dead letters there are."""
        replies = self._runner.commands(("ZCARD", self._dlq(shard)) for shard in range(SHARDS))
        return sum(map(int, replies))

    def newest(self, limit: int) -> list[Place]:
        """Return the newest dead letters, the newest first."""
        pages = self._runner.commands(
            ("ZREVRANGE", self._dlq(shard), 0, limit - 1, "WITHSCORES") for shard in range(SHARDS)
        )
        places = [place for shard, flat in enumerate(pages) for place in _places(shard, flat)]
        return sorted(places, reverse=True)[:limit]

    def places(self, wanted: Wanted) -> list[Place]:
        """Return the dead letters that are wanted, the oldest first."""
        return sorted(place for shard, _, flat in self._pages(wanted, "ids") for place in _places(shard, flat))

    def groups(self, wanted: Wanted) -> list[Group]:
        """Return the dead letters that are wanted by fingerprint, the largest group first."""
        found: dict[tuple[str, ...], Group] = {}
        for _, _, flat in self._pages(wanted, "groups"):
            for i in range(0, len(flat), 10):
                group = _group(flat[i : i + 10])
                key = (group.actor, group.reason, group.fingerprint)
                if key in found:
                    found[key].add(group)
                else:
                    found[key] = group
        return sorted(found.values(), key=lambda group: (-group.count, -group.last_seen, group.sample_id))

    def plan(self, wanted: Wanted) -> list[Planned]:
        """Return how many dead letters would run as what, the most first."""
        found: dict[tuple[str, str, int], int] = {}
        for _, _, flat in self._pages(wanted, "plan"):
            for i in range(0, len(flat), 4):
                key = _text(flat[i]), _text(flat[i + 1]), int(flat[i + 2])
                found[key] = found.get(key, 0) + int(flat[i + 3])
        return sorted((Planned(*key, count) for key, count in found.items()), key=lambda p: (-p.letters, *p[:3]))

    def summaries(self, places: Sequence[Place]) -> list[Letter]:
        """Return what is told of dead letters, in the same order; those that are none any more are left out."""
        found: dict[str, Letter] = {}
        batches = list(_batches(places))
        calls = [self._call("letters_of", shard, "", *(place.task_id for place in part)) for shard, part in batches]
        for (shard, part), reply in zip(batches, self._runner.run_many(calls) if calls else [], strict=True):
            for place, told in zip(part, reply, strict=True):
                if told:
                    found[place.task_id] = _letter(place.task_id, shard, told)
        return [found[place.task_id] for place in places if place.task_id in found]

    def release(self, places: Sequence[Place], who: str, how: str = "", body: bytes | None = None) -> dict[Place, str]:
        """Let dead letters run again; returns what happened to each: released, gone, pending, superseded, newer or
        unknown.

        `how`: what was changed, for the history. `body`: the message that takes the place of a single letter's own.
        """

        def call(shard: int, part: Sequence[Place]) -> ScriptCall:
            edited = ("0", *_pairs(part)) if body is None else ("1", *_pairs(part), body)
            return self._by_hand("release_letters", shard, who, how, *edited)

        return self._on(places, call)

    def purge(self, places: Sequence[Place], who: str) -> dict[Place, str]:
        """Discard dead letters; returns what happened to each: purged, gone, pending, newer or unknown."""
        keep = micros(MARK_KEPT)
        return self._on(places, lambda shard, part: self._by_hand("purge_letters", shard, who, keep, *_pairs(part)))

    def export(self, wanted: Sequence[tuple[int, Sequence[str]]], room: int) -> list[list[Any]]:
        """Read whole letters; see `export_letters.lua`, and `relier.store.letter_entries`, which makes sense of it."""
        calls = [self._call("export_letters", shard, "", room, *task_ids) for shard, task_ids in wanted]
        return self._runner.run_many(calls) if calls else []

    def take_in(self, who: str, entries: Sequence[tuple[int, Sequence[Any]]]) -> list[str]:
        """Make dead letters of exported ones; returns of each: imported, exists, or known (it is a task here)."""
        calls = [self._by_hand("import_letter", shard, who, *entry) for shard, entry in entries]
        return [decode(reply) for reply in self._runner.run_many(calls)] if calls else []

    # -- how --------------------------------------------------------------------------------------------------------

    def _dlq(self, shard: int) -> str:
        return self._keys.shard(shard, "")[5]

    def _pages(self, wanted: Wanted, what: str) -> Iterator[tuple[int, int, list[Any]]]:
        """Read every shard's letters that are wanted, a page of each in one round trip."""
        until = "+inf" if wanted.until is None else micros(wanted.until)
        names = json.dumps(wanted.names())
        cursors: dict[int, tuple[Any, Any]] = dict.fromkeys(range(SHARDS), (micros(wanted.since), 0))
        while cursors:
            calls = [
                self._call("scan_letters", shard, "", *cursor, PAGE, until, names, what, micros(TREND))
                for shard, cursor in cursors.items()
            ]
            for shard, reply in zip(tuple(cursors), self._runner.run_many(calls), strict=True):
                yield shard, int(reply[2]), reply[3]
                cursors[shard] = reply[0], reply[1]
                if not reply[0]:
                    del cursors[shard]

    def _on(self, places: Sequence[Place], call: Callable[[int, Sequence[Place]], ScriptCall]) -> dict[Place, str]:
        """Run one script a shard and `BATCH` letters, all in one round trip."""
        batches = list(_batches(places))
        replies = self._runner.run_many([call(*batch) for batch in batches]) if batches else []
        return {
            place: decode(outcome)
            for (_, part), reply in zip(batches, replies, strict=True)
            for place, outcome in zip(part, reply, strict=True)
        }


def _batches(places: Iterable[Place]) -> Iterator[tuple[int, list[Place]]]:
    by_shard: dict[int, list[Place]] = {}
    for place in places:
        by_shard.setdefault(place.shard, []).append(place)
    for shard, found in by_shard.items():
        for i in range(0, len(found), BATCH):
            yield shard, found[i : i + BATCH]


def _pairs(places: Iterable[Place]) -> Iterator[Any]:
    for place in places:
        yield place.task_id
        yield place.died or ""


def _places(shard: int, flat: Sequence[Any]) -> Iterator[Place]:
    pairs = flat if flat and isinstance(flat[0], list) else zip(flat[::2], flat[1::2], strict=True)  # RESP3 pairs them.
    for task_id, died in pairs:
        yield Place(int(float(died)), shard, _text(task_id))


def _group(flat: Sequence[Any]) -> Group:
    fingerprint, actor, reason = map(_text, flat[:3])
    first, last = _seconds(flat[4]), _seconds(flat[5])
    numbers = int(flat[3]), first, last, int(flat[6]), int(flat[7])
    return Group(fingerprint, actor, reason, *numbers, _text(flat[8]), _text(flat[9]))


def _letter(task_id: str, shard: int, told: Sequence[Any]) -> Letter:
    actor, queue, reason, fingerprint = map(_text, told[1:5])
    attempts, crashes, version = map(int, told[5:8])
    return Letter(
        task_id,
        shard,
        _seconds(told[0]),
        actor,
        queue,
        reason,
        fingerprint,
        attempts,
        crashes,
        version,
        _text(told[8]),
        _seconds(told[9]),
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _seconds(value: Any) -> float:
    return int(value) / 1e6
