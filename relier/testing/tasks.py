"""Tasks as a test sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dramatiq import Message
from dramatiq.errors import DecodeError

from relier.envelope import stamp_of
from relier.hooks import decode_failure
from relier.store import Record


@dataclass(frozen=True, slots=True)
class Task:
    """A task that has not ended, or a dead letter."""

    id: str
    actor: str
    queue: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    state: str  #: queued, scheduled, running or dead
    due_in: float = 0.0  #: seconds of the test's clock until it is due
    attempt: int = 0  #: failed runs so far
    crashes: int = 0  #: runs whose worker died
    reason: str = ""  #: why it is a dead letter, or waits: an exception's name, as a rule
    error: str = ""  #: what that exception said


def task_of(record: Record, now: float) -> Task:
    """Return the task of a record of the store, at a time (s since the epoch)."""
    message = _decoded(record.body)
    state = "dead" if record.state == "d" else record.status
    return Task(
        record.task_id,
        record.actor,
        record.queue,
        tuple(message.args) if message else (),
        dict(message.kwargs) if message else {},
        state,
        due_in=max(0.0, record.due_at - now) if state == "scheduled" else 0.0,
        attempt=record.attempt,
        crashes=record.crashes,
        reason=record.reason,
        error=str(decode_failure(record.result).get("message", "")) if state == "dead" else "",
    )


def queued_task(raw: bytes) -> Task | None:
    """Return the task of a message that waits in the broker; None for bytes that are none."""
    message = _decoded(raw)
    if message is None:
        return None
    args, kwargs = tuple(message.args), dict(message.kwargs)
    return Task(stamp_of(message).task_id, message.actor_name, message.queue_name, args, kwargs, "queued")


def _decoded(body: bytes) -> Message[Any] | None:
    try:
        return Message.decode(body)
    except (DecodeError, TypeError, AttributeError):
        return None
