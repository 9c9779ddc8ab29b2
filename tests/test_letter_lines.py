"""Dead letters as lines of JSON: complete, and not believed when they come back."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from dramatiq import Message
from hypothesis import given
from hypothesis import strategies as st

from relier.envelope import HIGHEST_FENCE, stamp_of
from relier.hooks import encode_failure
from relier.letter_lines import BadLineError, entry_of, line_of
from relier.store.letter_entries import Entry, EntryRun
from tests.test_integrity import keyless, message, sealed, signing, steadily

MICROS = st.integers(0, 4_000_000_000_000_000)
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


def entry(of: Message[Any] | None = None, **more: Any) -> Entry:
    body = of or sealed(keyless, message(1, "two"))
    stamp = stamp_of(body)
    fields: dict[str, Any] = {
        "task_id": stamp.task_id,
        "shard": stamp.shard,
        "died": 1_763_600_000_123_457,
        "actor": body.actor_name,
        "queue": "work",
        "reason": "ValueError",
        "fingerprint": "abcd",
        "attempts": 3,
        "crashes": 6,
        "max_resurrections": 5,
        "payload_version": 1,
        "created": 1_763_600_000,
        "suspect": True,
        "fence": 1_763_600_000_123_400,
        "body": body.encode(),
        "failure": encode_failure(ValueError("no such thing")),
        "checkpoint_in": "s",
        "checkpoint": b"\x00\xffhalf",
        "on_dead": "default\ntold",
        "job": "",
        "runs": (EntryRun("w1", 1_763_600_000_000_001, 1_763_600_000_000_002, "failed", "ValueError: no"),),
        "identical": 3,
    }
    return Entry(**{**fields, **more})


def line(**more: Any) -> str:
    return json.dumps({**line_of(entry()), **more})


def test_a_line_tells_people_what_it_is_about() -> None:
    told = line_of(entry())
    assert (told["actor"], told["reason"], told["resurrection_count"]) == ("add", "ValueError", 6)
    assert told["exception"] == {"type": "ValueError", "message": "no such thing"}
    assert told["dead_lettered_at"] == "2025-11-20T00:53:20.123457Z"
    assert base64.b64decode(told["payload_base64"]) == entry().body


@steadily
@given(
    died=MICROS,
    fence=st.integers(0, HIGHEST_FENCE),
    texts=st.tuples(TEXT, TEXT),
    data=st.binary(max_size=60),
    where=st.sampled_from(["", "s", "f"]),
    runs=st.lists(st.builds(EntryRun, TEXT, MICROS, MICROS, TEXT, TEXT), max_size=3),
)
def test_a_line_gives_back_the_whole_entry(
    died: int, fence: int, texts: tuple[str, ...], data: bytes, where: str, runs: list[EntryRun]
) -> None:
    fingerprint, on_dead = texts
    made = entry(
        died=died,
        fence=fence,
        fingerprint=fingerprint,
        on_dead=on_dead,
        failure=data,
        checkpoint_in=where,
        checkpoint=data if where else b"",
        runs=tuple(runs),
    )
    assert entry_of(json.dumps(line_of(made)), keyless) == made


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("{", "it is no JSON"),
        ("[" * 100_000, "it is no JSON"),
        ("[]", "it is no JSON object"),
        (line(format=2), "its format is 2, not 1"),
        (line(id=""), "its 'id' is no text"),
        (line(shard=64), "its 'shard' is no whole number from 0 to 63"),
        (line(shard=3), "its payload is that of another task"),
        (line(id="somebody"), "its payload is that of another task"),
        (line(actor="other"), "its payload is that of another task"),
        (line(actor=""), "it names no actor"),
        (line(queue="other"), "its 'queue' is not that of its payload"),
        (line(payload_version=2), "its 'payload_version' is not that of its payload"),
        (line(job="another"), "its 'job' is not that of its payload"),
        (line(attempts=-1), "its 'attempts' is no whole number"),
        (line(attempts=True), "its 'attempts' is no whole number"),
        (line(fence=2**60), "its 'fence' is no whole number"),
        (line(dead_lettered_at="yesterday"), "its 'dead_lettered_at' is no time"),
        (line(dead_lettered_at="2026-01-01T00:00:00"), "its 'dead_lettered_at' is no time with a time zone"),
        (line(payload_base64="***"), "its 'payload_base64' is no base64"),
        (line(payload_base64=None), "its 'payload_base64' is no base64"),
        (line(payload_base64="AAAA"), "its payload cannot be decoded"),
        (line(runs=[{"worker": 3}]), "its 'worker' is no text"),
        (line(runs=[{}] * 21), "its 'runs' are no list of 20 runs"),
        (line(checkpoint="there"), "its 'checkpoint' is kept neither"),
        (line(reason=None), "its 'reason' is no text"),
    ],
)
def test_a_line_that_is_not_in_order_is_refused_and_says_why(bad: str, why: str) -> None:
    with pytest.raises(BadLineError, match=why):
        entry_of(bad, keyless)


def test_a_payload_that_was_changed_is_refused() -> None:
    body = json.loads(entry().body)
    body["args"] = [2, "two"]
    changed = base64.b64encode(json.dumps(body).encode()).decode()
    with pytest.raises(BadLineError, match="its payload is refused: Its checksum does not fit"):
        entry_of(line(payload_base64=changed), keyless)


def test_where_signatures_are_required_an_unsigned_payload_is_refused() -> None:
    with pytest.raises(BadLineError, match="It is not signed"):
        entry_of(line(), signing)


def test_the_letter_of_a_refused_message_may_hold_anything() -> None:
    """It was refused, and will be again: its bytes are kept for people."""
    raw = entry(task_id="raw-1", actor="", reason="PayloadIntegrityError", body=b"\xff\x00")
    assert entry_of(json.dumps(line_of(raw)), signing) == raw
