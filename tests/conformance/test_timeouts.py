"""Tasks that take too long end in the DLQ, whatever they do, and the process's other tasks go on."""

from __future__ import annotations

import os
import signal
import time

import pytest

from relier_cli.dlq import letter
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import cases, where
from tests.integration.harness import Harness

SWALLOWS = "A cancelled coroutine does not end; it cannot commit any more."
BLOCKS = "A coroutine blocks the event loop; it cannot commit any more."


def test_a_hard_timeout_makes_a_dead_letter_with_its_checkpoint_and_its_release_goes_on(fleet: Harness) -> None:
    worker = fleet.worker()
    task = fleet.actors.limits.late.push(fleet.gate("never"), "waits").id

    counters = fleet.settle(1)

    assert counters["dead"] == counters["failed"] == 1
    assert fleet.dead_ones() == ["HardTimeoutError"]
    dead = letter(fleet.store, task)
    assert dead["exception"]["message"] == "It ran longer than the hard_timeout of 'late' (2 s)."
    assert (dead["checkpoint_bytes"], dead["checkpoint_kept_in"]) == (16, "redis")
    assert "raise its limit" in dead["likely_fix"]
    assert [effect.detail for effect in fleet.effects("soft")] == [{"page": 5}]
    assert len(fleet.effects("cancelled")) == 1
    assert "A task takes longer than its soft timeout." in worker.text()

    fleet.store.tasks.hold(task, "release", "test")
    fleet.settle(1)
    assert [effect.detail for effect in fleet.effects("ran", task)] == [{"page": 5}]
    assert fleet.record(task) is None or fleet.store.status(task) == "completed"


@pytest.mark.parametrize(
    ("how", "topology"),
    cases({"swallows": ("rabbitmq",), "blocks": ("embedded", "rabbitmq")}),
    indirect=["topology"],
)
def test_a_coroutine_that_does_not_stop_cannot_commit_and_others_go_on(fleet: Harness, how: str) -> None:
    worker = fleet.worker(threads=4)
    beside = fleet.actors.agated.push(fleet.gate()).id
    fleet.wait(lambda: fleet.effects("began", beside), what="an innocent task")
    late = fleet.actors.limits.late.push(fleet.gate("late"), how).id
    fleet.wait(lambda: fleet.effects("began", late), what="one that takes too long")
    waiting = [fleet.actors.aquick.push(i).id for i in range(10)]

    fleet.wait(lambda: all(fleet.effects("ran", task) for task in waiting), what="those that wait")
    fleet.wait(lambda: fleet.dead_ones() == ["HardTimeoutError"], what="the dead letter")
    fleet.open_gate()
    fleet.wait(lambda: fleet.effects("ran", beside), what="the innocent")
    report = SWALLOWS if how == "swallows" else BLOCKS
    fleet.wait(lambda: report in worker.text(), what="the report")
    assert "in late" in worker.text()

    fleet.open_gate("late")
    fleet.wait(lambda: fleet.effects("stale", late), what="a refused checkpoint")
    counters = fleet.settle(12)
    assert (counters["completed"], counters["dead"], counters["failed"]) == (11, 1, 1)
    assert (counters.get("crashes", 0), counters.get("retries", 0)) == (0, 0)
    assert {effect.attempt for effect in fleet.effects()} == {0}
    assert worker.stop() == 0


@where(("embedded",))
def test_a_worker_stops_although_a_coroutine_blocks_its_loop(fleets: Fleets) -> None:
    fleet = fleets(graceful_shutdown_timeout=1)
    worker = fleet.worker()
    late = fleet.actors.limits.late.push(fleet.gate("never"), "blocks").id
    fleet.wait(lambda: BLOCKS in worker.text(), what="the report")
    assert worker.stop() == 0
    assert fleet.store.status(late) == "dead"


@pytest.mark.slow
def test_a_limit_that_passes_while_the_process_is_frozen_changes_nothing_for_a_task_that_has_moved_on(
    fleets: Fleets,
) -> None:
    fleet = fleets(heartbeat_ttl=2)
    worker = fleet.worker()
    task = fleet.actors.limits.frozen.push(fleet.gate()).id
    began = fleet.wait(lambda: fleet.effects("began", task), what="a running task")[0].mono
    worker.signal(signal.SIGSTOP)
    fleet.open_gate("other")
    fleet.worker()
    fleet.wait(lambda: len(fleet.effects("began", task)) == 2, what="another run")
    fleet.open_gate()
    fleet.wait(lambda: fleet.effects("ran", task), what="its end")
    fleet.wait(lambda: time.monotonic() > began + 11, what="the limit of the frozen run")

    os.kill(worker.pid, signal.SIGCONT)

    fleet.wait(lambda: "continues under a new identity" in worker.text(), what="its return")
    counters = fleet.settle(1)
    assert (counters["completed"], counters.get("dead", 0)) == (1, 0)
