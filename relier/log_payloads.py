"""Keeps arguments out of log lines that Dramatiq would print them in, and notes which task a line belongs to.

Both happen where a record is made, so that every handler gets it so, also one that user code adds. An exception's text
is user code's own: it is logged with its traceback, whatever it says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from dramatiq import Message
from dramatiq.broker import MessageProxy

from relier.log_context import current_fields, fields_of, note_fields

__all__ = ["guard_records"]

#: What Dramatiq's actors log at DEBUG, each under its own module's name.
_RECEIVED = "Received args=%r kwargs=%r."


def guard_records() -> None:
    """Let every record of this process that is made from now on be guarded. A second call changes nothing."""
    make = logging.getLogRecordFactory()
    if not getattr(make, "relier_guards", False):
        logging.setLogRecordFactory(_guarding(make))


def _guarding(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    def guarding(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        fields = current_fields()
        if record.args:
            if record.msg == _RECEIVED:
                record.msg, record.args = "Received its arguments.", ()
            elif isinstance(record.args, tuple) and (message := _message_in(record.args)) is not None:
                fields = _fields_of(message) or fields
                record.args = tuple(map(_without_payload, record.args))
        note_fields(record, fields)
        return record

    guarding.relier_guards = True  # type: ignore[attr-defined]
    return guarding


def _message_in(values: tuple[Any, ...]) -> Any:
    return next((value for value in values if isinstance(value, Message | MessageProxy)), None)


def _fields_of(message: Any) -> dict[str, Any]:
    run = message.__dict__.get("relier_run")
    return fields_of(run) if run is not None else {}


class Named(str):
    """A message by its actor and its id."""

    #: Why the store had it skipped, if it had.
    skipped: str | None


def _without_payload(value: Any) -> Any:
    if not isinstance(value, Message | MessageProxy):
        return value
    named = Named(f"{value.actor_name}[{value.message_id}]")
    named.skipped = value.__dict__.get("relier_skipped")
    return named
