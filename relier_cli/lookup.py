"""Finds one task, and tells all there is to tell of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from relier.dead_letters import told
from relier.errors import RelierError
from relier.store import Record, Store
from relier.store.survey import Survey
from relier_cli.output import iso


@dataclass(frozen=True, slots=True)
class Found:
    """One task's record, and what belongs to it."""

    record: Record
    shard: int
    status: str
    dead_lettered_at: float
    events: list[dict[str, str]]


def find(store: Store, task_id: str) -> Found:
    """Return a task's record. Raises `RelierError` when there is none."""
    survey = Survey(store)
    shard = survey.locate(task_id)
    record = None if shard is None else store.records([task_id], shard).get(task_id)
    if record is None and store.known(task_id).outcome == "completed":
        raise RelierError(f"Task {task_id!r} has completed; its result is kept, its record was forgotten.")
    if shard is None or record is None:
        raise RelierError(
            f"There is no record of task {task_id!r}: no worker has claimed it yet, or it ended and was forgotten."
            " Had its message been refused as not what a producer sent, `rl dlq list` would have it under raw-…."
        )
    summary = survey.shard(shard).get(task_id)
    status = summary.status(survey.now()) if summary else record.status
    died = survey.dead_lettered_at(task_id, shard)
    return Found(record, shard, status, died, survey.events_of(task_id, shard))


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
        "events": [{**event, "at": iso(int(event["at"]) / 1e6)} for event in found.events],
    }
