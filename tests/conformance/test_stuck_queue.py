"""The queue that used to be stuck: a job fails for ever, its owner enqueues it again, and both run side by side."""

from __future__ import annotations

import pytest

from relier import JobKeyRefusedError
from tests import processes
from tests.conformance.topologies import where
from tests.integration.actors import FIXED_VARIABLE
from tests.integration.harness import Harness


@where(("embedded", "rabbitmq"))
def test_a_job_that_cannot_succeed_runs_once_and_its_queue_is_never_stuck(fleet: Harness) -> None:
    """Three jobs fail. The code is mended; one is released, one enqueued again, one refused until it is released."""
    broken = fleet.worker()
    released = fleet.actors.checksum.push(1, "text").id
    reset = fleet.actors.checksum.push(2, "text").id
    refused = fleet.actors.strict.push(3, "text").id

    fleet.settle(3)  # They are dead letters, the queue is empty, and no worker owns anything.
    assert fleet.dead_ones() == ["TypeError"] * 3
    assert fleet.counted("began") == {released: 1, reset: 1, refused: 1}, fleet.report()

    broken.stop()
    fleet.environ[FIXED_VARIABLE] = "yes"
    fleet.worker().wait_ready()
    again = fleet.actors.checksum.push(2, "text").id
    with pytest.raises(JobKeyRefusedError) as refusal:
        fleet.actors.strict.push(3, "text")
    assert (refusal.value.dead_letter, refusal.value.reason) == (refused, "TypeError")
    assert _release(fleet, reset) != 0, "its job has a newer task"
    assert _release(fleet, released, refused) == 0

    counters = fleet.settle(4)
    assert fleet.counted("ran") == {released: 1, again: 1, refused: 1}, fleet.report()
    assert (counters["completed"], counters["discarded:superseded"], counters["dlq_left"]) == (3, 1, 3)
    fleet.actors.strict.push(3, "text")
    assert fleet.settle(5)["completed"] == 4


def _release(fleet: Harness, *tasks: str) -> int:
    variables = {name: str(value) for name, value in fleet.options.items()}
    return processes.rl(fleet.folder, "dlq", "release", *tasks, **variables).returncode
