"""The task that a log line belongs to: what is bound to every line that a task's code logs, whoever logs it.

The fields are read where a record is made, so that they are right in threads and coroutines, and stay when another
thread writes the line. They are bound for structlog as well, under its own rules: `merge_contextvars` adds them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

__all__ = ["TaskFields", "bind", "fields_of", "note_fields", "unbind"]

#: The fields of a line, in their order.
NAMES = ("task", "actor", "attempt", "fence", "worker")
#: Where a record keeps the fields that it was made under.
KEPT = "relier_task"

#: structlog takes every variable for its own whose name begins so, and an Ellipsis for none.
_task, _actor, _attempt, _fence, _worker = _variables = tuple(
    ContextVar[Any](f"structlog_{name}", default=...) for name in NAMES
)

#: The run that the current user code belongs to; see `relier.runs`.
current: ContextVar[Any] = ContextVar("relier_run", default=None)

#: Tells the trace and span of the moment, when traces are on.
trace_ids: list[Callable[[], Mapping[str, str]]] = []


class Described(Protocol):
    """What a line tells of a run."""

    @property
    def task_id(self) -> str: ...
    @property
    def actor_name(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def fence(self) -> int: ...
    @property
    def worker_id(self) -> str: ...


def bind(run: Described) -> None:
    """Bind a run for structlog in the calling context, and in those that are copied from it."""
    _task.set(run.task_id)
    _actor.set(run.actor_name)
    _attempt.set(run.attempt)
    _fence.set(run.fence)
    _worker.set(run.worker_id)


def unbind() -> None:
    """Undo `bind` in the calling context."""
    for variable in _variables:
        variable.set(...)


def fields_of(run: Described) -> dict[str, Any]:
    """Return what a line tells of a run."""
    return {
        "task": run.task_id,
        "actor": run.actor_name,
        "attempt": run.attempt,
        "fence": run.fence,
        "worker": run.worker_id,
    }


def current_fields() -> dict[str, Any]:
    """Return what the calling code's lines are to tell; nothing outside a task and without traces."""
    run = current.get()
    fields: dict[str, Any] = {} if run is None else fields_of(run)
    for ids in trace_ids:
        fields.update(ids())
    return fields


def note_fields(record: logging.LogRecord, fields: Mapping[str, Any]) -> None:
    """Keep fields with a record, for whoever writes it."""
    record.__dict__[KEPT] = fields


def fields_for(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return the fields that a record was made under."""
    kept: Mapping[str, Any] | None = record.__dict__.get(KEPT)
    return current_fields() if kept is None else kept


class TaskFields(logging.Filter):
    """Gives each record `task`, `actor`, `attempt`, `fence` and `worker`, for a handler that somebody else formats.

    Outside a task they are empty texts, so that a format may name them. What a line says by itself stays.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        fields = fields_for(record)
        for name in (*NAMES, "trace_id", "span_id"):
            record.__dict__.setdefault(name, fields.get(name, ""))
        return True
