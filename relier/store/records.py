"""A task's record as people and tools see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: Record states, as the store abbreviates them, and the word for each.
STATES = {"s": "waiting", "r": "running", "h": "ended, hooks pending", "e": "ended", "d": "dead"}


#: The reason of a task that waits for another one with its idempotency key.
AWAITS_KEY = "waits for its key"

#: The reason of a task with a job key whose producer publishes its first copy.
PUSHED = "pushed"


def status_of(state: str, outcome: str, published: int, reason: str) -> str:
    """Return the word for a record's state: queued, scheduled, running, completed, dead, discarded or marked."""
    if state == "s":
        return "queued" if published or reason in (AWAITS_KEY, PUSHED) else "scheduled"
    if state == "r":
        return "running"
    return outcome or "unknown"


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run of a task. Times are seconds since the epoch on the server's clock."""

    worker: str
    started_at: float
    ended_at: float
    outcome: str
    detail: str


@dataclass(frozen=True, slots=True)
class Record:
    """One task's record. Times are seconds since the epoch on the server's clock; 0 means none."""

    task_id: str
    state: str
    fence: int
    owner: str
    granted_at: float
    sticky: bool
    suspect: bool
    attempt: int
    crashes: int
    max_resurrections: int
    published: int
    created_at: float
    queue: str
    actor: str
    outcome: str
    reason: str
    fingerprint: str
    result: bytes
    payload_version: int
    body: bytes
    due_at: float
    runs: tuple[Run, ...]
    #: Where its checkpoint is, and its size; '' for none (see `relier.store.checkpoints`).
    checkpoint: str = ""
    #: Another task that has its idempotency key, or completed under it.
    key_owner: str = ""
    #: How many of its last failures in a row were identical: had its fingerprint.
    identical: int = 0

    @property
    def status(self) -> str:
        """The word of `TaskReceipt.status()`: queued, scheduled, running, completed, dead or discarded."""
        return status_of(self.state, self.outcome, self.published, self.reason)


def remembered(task_id: str) -> Record:
    """Return what is known of a task that completed at its first try and of which only the id is kept."""
    times: dict[str, Any] = dict.fromkeys(("granted_at", "created_at", "due_at"), 0.0)
    numbers: dict[str, Any] = dict.fromkeys(("fence", "attempt", "crashes", "max_resurrections", "published"), 0)
    texts: dict[str, Any] = dict.fromkeys(("owner", "queue", "actor", "reason", "fingerprint"), "")
    return Record(
        task_id,
        "e",
        outcome="completed",
        sticky=True,
        suspect=False,
        payload_version=1,
        result=b"",
        body=b"",
        runs=(),
        **times,
        **numbers,
        **texts,
    )


def _seconds(micros: Any) -> float:
    return float(micros or 0) / 1e6


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def parse_record(task_id: str, reply: Sequence[Any]) -> Record | None:
    """Turn the reply of `inspect.lua` for one id into a record; None when there is none."""
    if not reply:
        return None
    if len(reply) == 1:
        return remembered(task_id)
    runs = tuple(Run(_text(r[0]), _seconds(r[1]), _seconds(r[2]), _text(r[3]), _text(r[4])) for r in reply[20])
    return Record(
        task_id=task_id,
        state=_text(reply[0]),
        fence=int(reply[1]),
        owner=_text(reply[2]),
        granted_at=_seconds(reply[3]),
        sticky=bool(reply[4]),
        suspect=bool(reply[5]),
        attempt=int(reply[6]),
        crashes=int(reply[7]),
        max_resurrections=int(reply[8]),
        published=int(reply[9]),
        created_at=_seconds(reply[10]),
        queue=_text(reply[11]),
        actor=_text(reply[12]),
        outcome=_text(reply[13]),
        reason=_text(reply[14]),
        fingerprint=_text(reply[15]),
        result=reply[16],
        payload_version=int(reply[17]),
        body=reply[18],
        due_at=_seconds(reply[19]),
        runs=runs,
        checkpoint=_text(reply[21]),
        key_owner=_text(reply[22]),
        identical=int(reply[23]),
    )
