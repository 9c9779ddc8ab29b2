"""Finds one task, and tells all there is to tell of it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from dramatiq import Message

from relier.errors import RelierError
from relier.hooks import decode_failure
from relier.store import Record, Store
from relier.store.checkpoints import size_of
from relier.store.survey import Survey
from relier_cli.output import iso

#: Where a record's checkpoint is (see `relier.store.checkpoints`).
_PLACES = {"s": "redis", "k": "redis", "f": "file"}


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
        "actor": record.actor,
        "queue": record.queue,
        **claims(record),
        **arguments(record.body),
        "payload_version": record.payload_version,
        "reason": record.reason or None,
        "key_owner": record.key_owner or None,
        "attempts": record.attempt,
        "resurrection_count": record.crashes,
        "max_resurrections": record.max_resurrections,
        "worker": record.owner or None,
        "fence": record.fence,
        "suspect": record.suspect,
        "published": record.published,
        "fingerprint": record.fingerprint or None,
        "checkpoint_bytes": size_of(record.checkpoint) or None,
        "checkpoint_kept_in": _PLACES.get(record.checkpoint[:1]),
        "created_at": iso(record.created_at),
        "started_at": iso(record.granted_at) if record.owner else None,
        "due_at": iso(record.due_at),
        "dead_lettered_at": iso(found.dead_lettered_at),
        "exception": failure_of(record),
        "runs": [
            {
                "worker": run.worker,
                "started_at": iso(run.started_at),
                "ended_at": iso(run.ended_at),
                "outcome": run.outcome,
                "detail": run.detail or None,
            }
            for run in record.runs
        ],
        "events": [{**event, "at": iso(int(event["at"]) / 1e6)} for event in found.events],
    }


def arguments(body: bytes) -> dict[str, Any]:
    """Return the arguments that a message body holds, or the raw bytes when it cannot be decoded."""
    if not body:
        return {"args": None, "kwargs": None}
    try:
        message: Message[Any] = Message.decode(body)
        return {"args": list(message.args), "kwargs": dict(message.kwargs)}
    except Exception:  # An encoder of the application's may raise anything.
        return {"args": None, "kwargs": None, "raw_base64": base64.b64encode(body).decode()}


def claims(record: Record) -> dict[str, str | None]:
    """Return which task and actor a refused message claims to be: nobody vouches for that. None: it is no such one."""
    nothing: dict[str, str | None] = {"claimed_id": None, "claimed_actor": None}
    if record.actor or not record.body:
        return nothing
    try:
        message: Message[Any] = Message.decode(record.body)
        return {"claimed_id": str(message.message_id)[:64], "claimed_actor": str(message.actor_name)[:64]}
    except Exception:  # An encoder of the application's may raise anything.
        return nothing


def failure_of(record: Record) -> dict[str, str] | None:
    """Return the last failure that the record keeps: type, message, traceback."""
    if record.outcome != "dead" and record.state not in ("s", "r"):
        return None
    try:
        failure = decode_failure(record.result)
    except Exception:
        return None
    if "type" not in failure:
        return None
    return {name: str(failure.get(name, "")) for name in ("type", "message", "traceback")}
