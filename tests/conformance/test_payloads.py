"""A message that is too large is refused where it is enqueued, and nowhere else."""

from __future__ import annotations

import dramatiq
import pytest

from relier import PayloadTooLargeError, RelierError
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import USUAL, where

LIMIT = 1500
LARGE = "x" * LIMIT


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


def test_a_limit_that_was_lowered_keeps_no_accepted_task_from_running(fleets: Fleets) -> None:
    """A retry and a task that is put back are further copies of what was accepted."""
    fleet = fleets()
    fleet.actors.flaky.push_many([fleet.actors.flaky.message(2), fleet.actors.flaky.message(1)])
    fleet.actors.quick.send_with_options(args=(LARGE,), delay=1)

    fleet.worker(max_payload_bytes=256)

    assert fleet.settle(3)["retries"] == 3
