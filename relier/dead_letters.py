"""The dead record: all that is kept of a dead letter, as plain JSON, and the same everywhere.

`rl dlq inspect --json` prints it, and the actor that another one names as `on_dead` gets it. docs/dead-letters.md
tells what each field means.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from dramatiq import Message

from relier.failure_kinds import FailureKind
from relier.failures import IDENTICAL_LIMIT
from relier.fixes import likely_fix
from relier.hooks import decode_failure
from relier.store.checkpoints import size_of
from relier.store.notices import is_notice, read_notice
from relier.store.records import Record

__all__ = ["arguments", "claims", "dead_record", "failure_of", "iso", "told"]

#: Where a record's checkpoint is (see `relier.store.checkpoints`).
_PLACES = {"s": "redis", "k": "redis", "f": "file"}


def dead_record(record: Record, died_at: float) -> dict[str, Any]:
    """Return what is kept of a dead letter. `died_at`: when it became one, in seconds since the epoch."""
    failure = failure_of(record)
    fix = likely_fix(record.reason, failure["message"] if failure else "")
    return {**told(record), "dead_lettered_at": iso(died_at), "likely_fix": fix}


def told(record: Record) -> dict[str, Any]:
    """Return what there is to tell of any task, whatever its state: arguments, counts, last failure, runs."""
    return {
        "id": record.task_id,
        "actor": record.actor,
        "queue": record.queue,
        **claims(record),
        **arguments(record.body),
        "payload_version": record.payload_version,
        "reason": record.reason or None,
        "exception": failure_of(record),
        "failure_kind": _failure(record).get("kind"),
        "fingerprint": record.fingerprint or None,
        "identical_failures": record.identical,
        "series": series_of(record),
        "attempts": record.attempt,
        "resurrection_count": record.crashes,
        "max_resurrections": record.max_resurrections,
        "fence": record.fence,
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
        "checkpoint_bytes": size_of(record.checkpoint) or None,
        "checkpoint_kept_in": _PLACES.get(record.checkpoint[:1]),
        "created_at": iso(record.created_at, whole=True),
    }


def arguments(body: bytes) -> dict[str, Any]:
    """Return the arguments that a message body holds, or the raw bytes when it cannot be decoded."""
    if not body:
        return {"args": None, "kwargs": None}
    try:
        if is_notice(body):
            return {"args": [dead_record(*read_notice(body))], "kwargs": {}}
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
    failure = _failure(record)
    return {name: str(failure.get(name, "")) for name in ("type", "message", "traceback")} if failure else None


def series_of(record: Record) -> str | None:
    """Return what a dead letter's last failures have in common, when they are many and identical."""
    if record.outcome != "dead" or record.identical < IDENTICAL_LIMIT:
        return None
    if _failure(record).get("kind") == FailureKind.TRANSIENT:
        return (
            f"Its last {record.identical} failures were transient and identical: what it needs was away all the time,"
            " or the failure is none that passes."
        )
    return f"Its last {record.identical} failures were identical: trying again does not help."


def _failure(record: Record) -> dict[str, Any]:
    """Return the last failure that the record keeps; empty when there is none."""
    if record.outcome != "dead" and record.state not in ("s", "r"):
        return {}
    try:
        failure = decode_failure(record.result)
    except Exception:
        return {}
    return failure if "type" in failure else {}


def iso(seconds: float, *, whole: bool = False) -> str | None:
    """Return a time as ISO 8601 in UTC, None for none. `whole`: it is known to the second only."""
    if seconds <= 0:
        return None
    timespec = "seconds" if whole else "milliseconds"
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")
