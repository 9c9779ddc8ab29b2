"""What cannot be delivered is kept and strands nothing; what is too large is refused where it is enqueued."""

from __future__ import annotations

import base64
import json

import dramatiq
import pytest
from dramatiq import Message

from relier import PayloadTooLargeError, RelierError
from relier.dead_letters import dead_record
from tests.conformance.conftest import Fleets
from tests.conformance.raw_broker import put, put_bytes
from tests.conformance.topologies import FOREIGN, USUAL, where
from tests.integration.harness import Harness

#: What is no message at all, and what only looks like one.
BROKEN = (
    b"\xff\x00 no text",
    b"",
    b"null",
    b"[]",
    b"{}",
    b"[" * 50_000,
    b'{"queue_name": "default", "actor_name": "quick"',
    b'{"queue_name": "default", "actor_name": "quick", "args": 7}',
)

LIMIT = 1500
LARGE = "x" * LIMIT


@where(USUAL, never=FOREIGN)
def test_what_is_no_message_is_kept_as_it_came_and_strands_no_neighbour(fleet: Harness) -> None:
    """Brokers that are not Relier's do what their consumers do; see `tests/brokers/test_guard.py`."""
    quick = fleet.actors.quick
    whole = quick.message("cut off").encode()
    broken = [*BROKEN, whole[: len(whole) // 2], whole[:-1]]
    before = [quick.push(n).id for n in range(3)]
    between = []
    for data in broken:
        put_bytes(fleet, "default", data)
        between.append(quick.push(3).id)

    fleet.worker()

    counters = fleet.settle(len(before) + len(between) + len(broken))
    assert fleet.counted("ran") == dict.fromkeys([*before, *between], 1)
    assert counters["dead"] == counters["integrity_failures"] == len(broken)
    assert fleet.dead_ones() == ["PayloadIntegrityError"] * len(broken)
    letters = [fleet.store.records([task], shard)[task] for task, shard, _ in fleet.store.dead_letters(100)]
    assert sorted(letter.body for letter in letters) == sorted(broken)
    for letter in letters:
        record = dead_record(letter, 1.0)
        assert base64.b64decode(record.get("raw_base64", "")) == letter.body
        assert record["exception"]
        assert json.dumps(record)


@where((*USUAL, "plain-redis"))
def test_what_nobody_can_run_waits_and_strands_no_neighbour(fleets: Fleets) -> None:
    """An actor that nobody has; and a message that names another queue than the one it is in, which nobody declared."""
    fleet = fleets(unknown_actor_grace=0.5)
    quick = fleet.actors.quick
    unknown = Message[object]("default", "unheard_of", (1,), {}, {})
    astray = Message[object]("elsewhere", "quick", (2,), {}, {})
    neighbours = [quick.push(0).id]
    put(fleet, unknown)
    put(fleet, astray, "default")
    neighbours += [quick.push(n).id for n in range(4)]
    fleet.worker()

    counters = fleet.settle(7)

    assert counters["completed"] == 6
    assert fleet.counted("ran") == dict.fromkeys([*neighbours, astray.message_id], 1)
    assert fleet.dead_ones() == ["ActorNotFound"]


@where((*USUAL, "plain-redis"))
def test_a_message_that_is_too_large_is_refused_however_it_is_enqueued(fleets: Fleets) -> None:
    fleet = fleets(max_payload_bytes=LIMIT)
    quick, plain = fleet.actors.quick, fleet.actors.plain
    small = [quick.push("x" * (LIMIT // 3)), quick.push("é" * (LIMIT // 12))]

    with pytest.raises(PayloadTooLargeError, match="RELIER_MAX_PAYLOAD_BYTES") as caught:
        quick.push(LARGE)
    with pytest.raises(PayloadTooLargeError):
        plain.send(LARGE)
    with pytest.raises(PayloadTooLargeError):
        quick.send_with_options(args=(LARGE,), delay=1)
    with pytest.raises(PayloadTooLargeError):
        quick.push_many([quick.message("small"), quick.message(LARGE)])
    with pytest.raises(PayloadTooLargeError):
        dramatiq.pipeline([quick.message("small"), quick.message(LARGE)], broker=fleet.broker).run()  # type: ignore[no-untyped-call]

    error = caught.value
    assert isinstance(error, RelierError) and isinstance(error, ValueError)
    assert (error.actor, error.limit) == ("quick", LIMIT)
    assert LIMIT < error.size < LIMIT + 500
    assert "'quick'" in str(error) and str(error.size) in str(error)
    fleet.worker()
    fleet.settle(len(small))


@where(("rabbitmq",))
def test_what_follows_from_a_task_is_sent_however_large_it_is(fleets: Fleets) -> None:
    """Its own task has ended; nobody would hear of a refusal."""
    fleet = fleets(max_payload_bytes=LIMIT // 2)
    worker = fleet.worker()
    returning, told = fleet.actors.returning, fleet.actors.told

    dramatiq.pipeline([returning.message("large"), told.message()], broker=fleet.broker).run()  # type: ignore[no-untyped-call]

    fleet.settle(2)
    (effect,) = fleet.effects("told")
    assert effect.detail == ["x" * 1000]
    assert "larger than RELIER_MAX_PAYLOAD_BYTES" in worker.text()


@where(("embedded",))
def test_a_limit_that_was_lowered_keeps_no_accepted_task_from_running(fleets: Fleets) -> None:
    """A retry and a task that is put back are further copies of what was accepted."""
    fleet = fleets()
    fleet.actors.flaky.push_many([fleet.actors.flaky.message(2), fleet.actors.flaky.message(1)])
    fleet.actors.quick.send_with_options(args=(LARGE,), delay=1)

    fleet.worker(max_payload_bytes=256)

    assert fleet.settle(3)["retries"] == 3
