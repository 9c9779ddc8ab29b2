"""Whole dead letters: what one store tells of them, and another one takes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from relier.store.calls import decode
from relier.store.letters import BATCH, Letters, Place

#: Most bytes of bodies, failures and checkpoints that one script reads.
READ_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class EntryRun:
    """One finished run. Times are µs since the epoch."""

    worker: str
    started: int
    ended: int
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything that makes a dead letter, but for its place in the store. Times are µs since the epoch."""

    task_id: str
    shard: int
    died: int
    actor: str
    queue: str
    reason: str
    fingerprint: str
    attempts: int
    crashes: int
    max_resurrections: int
    payload_version: int
    created: int  #: seconds since the epoch
    suspect: bool
    fence: int
    body: bytes
    failure: bytes  #: encoded, see `relier.hooks`
    checkpoint_in: str  #: '' nowhere, s: here, f: in a file
    checkpoint: bytes  #: its bytes, or the reference of its file
    on_dead: str
    job: str
    runs: tuple[EntryRun, ...]
    identical: int  #: how many of its last failures in a row were alike


def read_entries(letters: Letters, places: Sequence[Place]) -> Iterator[Entry]:
    """Iterate over whole letters, in order of their places; those that are none any more are left out."""
    waiting = list(places)
    while waiting:
        batch, waiting = waiting[:BATCH], waiting[BATCH:]
        found = _read(letters, batch)
        yield from (found[place.task_id] for place in batch if place.task_id in found)


def _read(letters: Letters, places: Sequence[Place]) -> dict[str, Entry]:
    """Read letters of any shards; again what the first reply had no room for."""
    found: dict[str, Entry] = {}
    left = [list(part) for _, part in _by_shard(places)]
    while left:
        replies = letters.export([(part[0].shard, [place.task_id for place in part]) for part in left], READ_BYTES)
        for part, reply in zip(left, replies, strict=True):
            for place, told in zip(part, reply, strict=False):
                if told:
                    found[place.task_id] = _entry(place, told)
            del part[: len(reply)]
        left = [part for part in left if part]
    return found


def _by_shard(places: Sequence[Place]) -> Iterator[tuple[int, list[Place]]]:
    by_shard: dict[int, list[Place]] = {}
    for place in places:
        by_shard.setdefault(place.shard, []).append(place)
    yield from by_shard.items()


def _entry(place: Place, told: Sequence[Any]) -> Entry:
    actor, queue, reason, fingerprint = map(_text, told[1:5])
    attempts, crashes, limit, version, created = map(int, told[5:10])
    return Entry(
        task_id=place.task_id,
        shard=place.shard,
        died=int(told[0]),
        actor=actor,
        queue=queue,
        reason=reason,
        fingerprint=fingerprint,
        attempts=attempts,
        crashes=crashes,
        max_resurrections=limit,
        payload_version=version,
        created=created,
        suspect=bool(told[10]),
        fence=int(told[11]),
        body=told[12],
        failure=told[13],
        checkpoint_in=decode(told[14]),
        checkpoint=told[15],
        on_dead=_text(told[16]),
        job=_text(told[17]),
        runs=tuple(EntryRun(_text(r[0]), int(r[1]), int(r[2]), _text(r[3]), _text(r[4])) for r in told[18]),
        identical=int(told[19]),
    )


def arguments_of(entry: Entry) -> tuple[Any, ...]:
    """Return an entry as `import_letter.lua` takes it."""
    runs = json.dumps([[run.worker, run.started, run.ended, run.outcome, run.detail] for run in entry.runs])
    return (
        entry.task_id,
        entry.died,
        entry.actor,
        entry.queue,
        entry.reason,
        entry.fingerprint,
        entry.attempts,
        entry.crashes,
        entry.max_resurrections,
        entry.payload_version,
        entry.created,
        "1" if entry.suspect else "0",
        entry.fence,
        entry.body,
        entry.failure,
        entry.checkpoint_in,
        entry.checkpoint,
        entry.on_dead,
        entry.job,
        runs,
        entry.identical,
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
