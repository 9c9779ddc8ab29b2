"""What is particular to brokers that are not Relier's; what holds everywhere is in the conformance suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.topologies import Ground
from tests.faults.clock import HOUR, FakeClock
from tests.integration.harness import Harness


@pytest.mark.parametrize("topology", ["plain-redis", "sqlite"], indirect=True)
def test_what_a_dead_worker_had_only_fetched_comes_back_by_the_brokers_own_means(fleet: Harness) -> None:
    victim = fleet.worker(threads=2)
    running = [fleet.actors.gated.push(fleet.gate()).id for _ in range(2)]
    fleet.wait(lambda: len(fleet.effects("began")) == 2, what="two running tasks")
    fetched = [fleet.actors.quick.push(i).id for i in range(30)]
    fleet.worker().wait_settled_in()

    victim.kill()

    fleet.wait(lambda: sum(e.crashes > 0 for e in fleet.effects("began")) == 2, what="both running again")
    fleet.open_gate()
    counters = fleet.settle(32)
    assert counters["completed"] == 32
    assert counters["crashes"] == counters["resurrections"] == 2
    assert set(fleet.counted("ran")) == {*running, *fetched}
    assert set(fleet.counted("ran").values()) == {1}


@pytest.mark.parametrize("topology", ["sqlite"], indirect=True)
def test_a_task_that_outlasts_the_brokers_timeout_runs_once(fleet: Harness) -> None:
    """Its message is delivered again while it runs. That copy is acknowledged: the task is the store's by then."""
    fleet.workers(2)
    task = fleet.actors.gated.push(fleet.gate()).id
    fleet.wait(lambda: fleet.effects("began"), what="its start")

    fleet.wait(lambda: fleet.held("default") == 0, what="the second copy's acknowledgement")

    fleet.open_gate()
    counters = fleet.settle(1)
    assert counters["completed"] == 1
    assert counters.get("crashes", 0) == 0
    assert [effect.task for effect in fleet.effects("began")] == [task]


@pytest.mark.parametrize("topology", ["plain-redis"], indirect=True)
def test_a_delayed_task_survives_a_cut_connection(fleet: Harness, ground: Ground) -> None:
    """Dramatiq drops it with the consumer that held it."""
    fleet.worker().wait_ready()
    task = fleet.actors.quick.send_with_options(args=(1,), delay=2_000).message_id
    fleet.wait(lambda: fleet.broker.client.llen("dramatiq:default.DQ") == 0, what="its fetch")

    assert ground.cut()

    counters = fleet.settle(1)
    assert counters["completed"] == 1
    assert fleet.counted("ran") == {task: 1}


@pytest.mark.parametrize("topology", ["plain-redis"], indirect=True)
def test_a_neighbour_whose_clock_is_ahead_runs_nothing_twice(fleet: Harness, faketime: Path, tmp_path: Path) -> None:
    """Dramatiq's maintenance hands it the messages of the living."""
    fleet.worker(threads=2).wait_ready()
    gated = [fleet.actors.gated.push(fleet.gate()).id for _ in range(6)]
    fleet.wait(lambda: len(fleet.effects("began")) == 2, what="two running tasks")
    with FakeClock(tmp_path, HOUR).applied():
        ahead = fleet.worker()

    fleet.wait(lambda: len(fleet.effects("began")) == 6, what="the runs of what the first one had only fetched")

    assert sum(effect.pid == ahead.pid for effect in fleet.effects("began")) == 4
    fleet.open_gate()
    counters = fleet.settle(6)
    assert counters["completed"] == 6
    assert counters.get("crashes", 0) == counters.get("refused", 0) == 0
    assert fleet.counted("ran") == dict.fromkeys(gated, 1)
