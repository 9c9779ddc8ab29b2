"""Dead letters as lines of JSON: complete, readable, and not believed when they come back.

A line holds what `Entry` has. Times are ISO 8601 in UTC, the payload and what else is bytes are base64.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from dramatiq import Message
from dramatiq.common import q_name

from relier.envelope import HIGHEST_FENCE, is_text, stamp_of
from relier.errors import PayloadIntegrityError, RelierError
from relier.hooks import decode_failure
from relier.integrity import Integrity
from relier.store import SHARDS
from relier.store.letter_entries import Entry, EntryRun

#: Version of the lines.
FORMAT = 1
#: The reason of what was refused: its payload is not in order, and need not be.
REFUSED = "PayloadIntegrityError"
#: Most runs that a record keeps.
RUNS_KEPT = 20
#: Longest text (characters) of a name, and of a run's detail.
LONGEST_NAME, LONGEST_DETAIL = 1_000, 10_000
_PLACES = {"": None, "s": "redis", "f": "file"}


class BadLineError(RelierError):
    """A line is no dead letter, or not one that may be believed. The text says why."""


def line_of(entry: Entry) -> dict[str, Any]:
    """Return an entry as a line has it."""
    return {
        "format": FORMAT,
        "id": entry.task_id,
        "shard": entry.shard,
        "actor": entry.actor,
        "queue": entry.queue,
        "reason": entry.reason,
        "fingerprint": entry.fingerprint,
        "exception": _exception(entry.failure),
        "identical_failures": entry.identical,
        "attempts": entry.attempts,
        "resurrection_count": entry.crashes,
        "max_resurrections": entry.max_resurrections,
        "suspect": entry.suspect,
        "payload_version": entry.payload_version,
        "created_at": _iso(entry.created * 1_000_000),
        "dead_lettered_at": _iso(entry.died),
        "fence": entry.fence,
        "on_dead": entry.on_dead,
        "job": entry.job,
        "runs": [
            {
                "worker": run.worker,
                "started_at": _iso(run.started),
                "ended_at": _iso(run.ended),
                "outcome": run.outcome,
                "detail": run.detail,
            }
            for run in entry.runs
        ],
        "checkpoint": {"kept_in": _PLACES[entry.checkpoint_in], "base64": _base64(entry.checkpoint)}
        if entry.checkpoint_in
        else None,
        "failure_base64": _base64(entry.failure),
        "payload_base64": _base64(entry.body),
    }


def entry_of(line: str | bytes, integrity: Integrity) -> Entry:
    """Return the entry that a line holds. Raises `BadLineError`.

    Its payload must be the task's, and such as a worker would run; that of a refused message need not be either.
    """
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"it is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise BadLineError("it is no JSON object")
    if data.get("format") != FORMAT:
        raise BadLineError(f"its format is {data.get('format')!r}, not {FORMAT}")
    entry = _Fields(data).entry()
    _check_payload(entry, integrity)
    return entry


def _check_payload(entry: Entry, integrity: Integrity) -> None:
    if entry.reason == REFUSED:
        return
    if not entry.actor:
        raise BadLineError("it names no actor")
    try:
        message: Message[Any] = Message.decode(entry.body)
        integrity.examine(message)
        stamp = stamp_of(message)
    except PayloadIntegrityError as error:
        raise BadLineError(f"its payload is refused: {error}") from None
    except Exception as error:  # An encoder of the application's may raise anything.
        raise BadLineError(f"its payload cannot be decoded: {error}") from None
    if (stamp.task_id, stamp.shard, message.actor_name) != (entry.task_id, entry.shard, entry.actor):
        raise BadLineError("its payload is that of another task")
    claimed = {
        "queue": (entry.queue, stamp.queue or q_name(message.queue_name)),
        "payload_version": (entry.payload_version, stamp.payload_version),
        "job": (entry.job, stamp.job),
    }
    for name, (told, true) in claimed.items():
        if told != true:
            raise BadLineError(f"its {name!r} is not that of its payload")


class _Fields:
    """The fields of a line, each checked as it is read."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._data = data

    def entry(self) -> Entry:
        checkpoint_in, checkpoint = self._checkpoint()
        return Entry(
            task_id=self._text("id", empty=False),
            shard=self._number("shard", SHARDS - 1),
            died=self._time("dead_lettered_at"),
            actor=self._text("actor"),
            queue=self._text("queue"),
            reason=self._text("reason", empty=False),
            fingerprint=self._text("fingerprint"),
            attempts=self._number("attempts"),
            crashes=self._number("resurrection_count"),
            max_resurrections=self._number("max_resurrections"),
            payload_version=self._number("payload_version"),
            created=self._time("created_at") // 1_000_000,
            suspect=bool(self._data.get("suspect")),
            fence=self._number("fence", HIGHEST_FENCE),
            body=self._bytes("payload_base64"),
            failure=self._bytes("failure_base64"),
            checkpoint_in=checkpoint_in,
            checkpoint=checkpoint,
            on_dead=self._text("on_dead"),
            job=self._text("job"),
            runs=self._runs(),
            identical=self._number("identical_failures"),
        )

    def _text(self, name: str, longest: int = LONGEST_NAME, *, empty: bool = True) -> str:
        value = self._data.get(name)
        if not isinstance(value, str) or not is_text(value) or len(value) > longest or not (value or empty):
            raise BadLineError(f"its {name!r} is no text{'' if empty else ' of one character at least'}")
        return value

    def _number(self, name: str, highest: int = 2**31) -> int:
        value = self._data.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
            raise BadLineError(f"its {name!r} is no whole number from 0 to {highest}")
        return value

    def _bytes(self, name: str) -> bytes:
        try:
            return base64.b64decode(self._data.get(name, None), validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise BadLineError(f"its {name!r} is no base64") from None

    def _time(self, name: str) -> int:
        value = self._data.get(name)
        try:
            time = datetime.fromisoformat(value)  # type: ignore[arg-type]
            return max(0, round(time.timestamp() * 1e6)) if time.tzinfo else _no_time(name)
        except (TypeError, ValueError, OverflowError):
            return _no_time(name)

    def _checkpoint(self) -> tuple[str, bytes]:
        value = self._data.get("checkpoint")
        if value is None:
            return "", b""
        where = {place: letter for letter, place in _PLACES.items()}.get(value.get("kept_in") if _is_map(value) else "")
        if not where:
            raise BadLineError("its 'checkpoint' is kept neither in redis nor in a file")
        return where, _Fields(value)._bytes("base64")

    def _runs(self) -> tuple[EntryRun, ...]:
        value = self._data.get("runs")
        if not isinstance(value, list) or len(value) > RUNS_KEPT or not all(map(_is_map, value)):
            raise BadLineError(f"its 'runs' are no list of {RUNS_KEPT} runs at most")
        return tuple(_Fields(run)._run() for run in value)

    def _run(self) -> EntryRun:
        return EntryRun(
            self._text("worker"),
            self._time("started_at"),
            self._time("ended_at"),
            self._text("outcome"),
            self._text("detail", LONGEST_DETAIL),
        )


def _no_time(name: str) -> int:
    raise BadLineError(f"its {name!r} is no time with a time zone (ISO 8601)")


def _is_map(value: Any) -> bool:
    return isinstance(value, dict)


def _iso(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _exception(failure: bytes) -> dict[str, str] | None:
    """Return type and text, for people who look at the file; the whole of it is beside it."""
    try:
        told = decode_failure(failure)
        return {name: str(told[name]) for name in ("type", "message")}
    except Exception:  # Another encoder wrote it.
        return None
