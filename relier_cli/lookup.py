"""Finds one task, and tells all there is to tell of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from relier.dead_letters import claims, told
from relier.errors import RelierError
from relier.store import SHARDS, Record, Store, shard_of
from relier.store.survey import Survey
from relier_cli.output import iso
from relier_cli.timeline import Moment, noted, timeline

#: Fewest characters that name a task by the beginning of its id.
SHORTEST = 6

#: Characters of the ids that Dramatiq gives.
WHOLE = 36


@dataclass(frozen=True, slots=True)
class Found:
    """One task's record, and what belongs to it."""

    record: Record
    shard: int
    status: str
    dead_lettered_at: float
    events: list[dict[str, str]]

    def timeline(self) -> list[Moment]:
        return timeline(self.record, self.events, self.dead_lettered_at)


class NoRecordError(RelierError):
    """There is no record of the task."""


def inspected(store: Store, task_id: str) -> Found:
    """Return the record of a task as `find` does; the error for none tells what the store noted of it, too."""
    try:
        return find(store, task_id)
    except NoRecordError as error:
        moments = list(noted(_last_events(Survey(store), task_id)))
        if not moments:
            raise
        told = ["The store noted of it:", *(_line(moment) for moment in moments)]
        raise NoRecordError("\n".join((str(error), *told))) from None


def _last_events(survey: Survey, task_id: str) -> list[dict[str, str]]:
    """Return the events of a task that is nowhere: first from where its id says; one with a key was somewhere else."""
    first = shard_of(task_id)
    shards = [first, *(shard for shard in range(SHARDS) if shard != first)]
    return next(filter(None, (survey.events_of(task_id, shard) for shard in shards)), [])


def _line(moment: Moment) -> str:
    by = f"by {moment.by}" if moment.by else ""
    return "  ".join(filter(None, (f"  {iso(moment.at)}", moment.what, by, moment.detail)))


def find(store: Store, task_id: str) -> Found:
    """Return the record of a task, named by its id or by how only that begins. Raises `RelierError` for none."""
    survey = Survey(store)
    shard = survey.locate(task_id)
    record = None if shard is None else store.records([task_id], shard).get(task_id)
    if shard is None:
        task_id, shard = _completed(survey, task_id)
        record = store.records([task_id], shard).get(task_id)
    if record is None:
        raise NoRecordError(
            f"Task {task_id!r} has ended; its record was forgotten. {_ENDED[store.known(task_id).outcome]}"
        )
    summary = survey.some([(task_id, shard)]).get(task_id)
    status = summary.status(survey.now()) if summary else record.status
    died = survey.dead_lettered_at(task_id, shard)
    return Found(record, shard, status, died, survey.events_of(task_id, shard))


def insist_on_whole(store: Store, task_id: str) -> None:
    """Raise `RelierError` for what is no task's id, but how some begin: a change would go to a task that is none."""
    survey = Survey(store)
    if SHORTEST <= len(task_id) < WHOLE and survey.locate(task_id) is None:
        found = sorted(survey.beginning_with(task_id))
        if found:
            more = f", or one of {len(found) - 1} others" if len(found) > 1 else ""
            raise RelierError(f"Nothing was done: {task_id!r} is no whole id. Is {found[0]} meant{more}?")


#: What is still known of tasks without a record.
_ENDED = {
    "completed": "It has completed; its result is kept.",
    "discarded": "It was cancelled before any worker had it.",
    "": "Look again.",
}


def _completed(survey: Survey, beginning: str) -> tuple[str, int]:
    """Return the one task whose id begins so, and its shard. Raises `RelierError`."""
    found = survey.beginning_with(beginning) if len(beginning) >= SHORTEST else {}
    if len(found) == 1:
        return next(iter(found.items()))
    if found:
        some = ", ".join(sorted(found)[:5])
        raise RelierError(
            f"{len(found)} tasks have an id that begins with {beginning!r}: {some}{'…' * (len(found) > 5)}"
        )
    raise NoRecordError(
        f"There is no record of task {beginning!r}: no worker has claimed it yet, or it has ended:"
        " of most tasks that complete nothing is kept."
        " `rl queue list` shows where tasks wait, and whether anybody consumes them."
        " Had its message been refused as not what a producer sent, `rl dlq list` would have it under raw-…."
    )


def claimed(store: Store, refused: Iterable[tuple[str, int]]) -> dict[str, dict[str, str | None]]:
    """Return what refused messages claim to be, given their ids and shards: only their bytes tell."""
    by_shard: dict[int, list[str]] = {}
    for task_id, shard in refused:
        by_shard.setdefault(shard, []).append(task_id)
    records = [record for shard, ids in by_shard.items() for record in store.records(ids, shard).values()]
    return {record.task_id: claims(record) for record in records}


def described(found: Found) -> dict[str, Any]:
    """Return a task as the JSON of the inspecting commands has it, arguments included."""
    record = found.record
    return {
        "id": record.task_id,
        "status": found.status,
        "state": record.state,
        **told(record),
        "key_owner": record.key_owner or None,
        "worker": record.owner or None,
        "suspect": record.suspect,
        "published": record.published,
        "started_at": iso(record.granted_at) if record.owner else None,
        "due_at": iso(record.due_at),
        "dead_lettered_at": iso(found.dead_lettered_at),
        "timeline": [moment.data() for moment in found.timeline()],
        "events": [{**event, "at": iso(int(event["at"]) / 1e6)} for event in found.events],
    }
