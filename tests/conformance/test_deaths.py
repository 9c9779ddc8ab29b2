"""Workers that die, freeze, come back, or are killed by their own tasks."""

from __future__ import annotations

import signal

import pytest

from tests.conformance.conftest import Fleets
from tests.conformance.topologies import EVERYWHERE, cases, where
from tests.integration.harness import Harness, Process
from tests.integration.scenario import Scenario


@where(EVERYWHERE, needs="prefetched")
def test_a_killed_workers_tasks_run_again_long_before_its_heartbeat_is_missed(fleets: Fleets) -> None:
    fleet = fleets(heartbeat_ttl=100)
    victim = fleet.worker(threads=2)
    running = [fleet.actors.gated.push(fleet.gate()).id for _ in range(2)]
    fleet.wait(lambda: len(fleet.effects("began")) == 2, what="two running tasks")
    prefetched = [fleet.actors.quick.push(i).id for i in range(30)]
    fleet.worker().wait_settled_in()

    victim.kill()

    fleet.wait(lambda: sum(e.crashes > 0 for e in fleet.effects("began")) == 2, what="both running again")
    fleet.open_gate()
    counters = fleet.settle(32)
    assert counters["completed"] == 32
    assert counters["crashes"] == counters["resurrections"] == 2
    assert set(fleet.counted("ran")) == {*running, *prefetched}
    assert set(fleet.counted("ran").values()) == {1}


def test_a_fleet_that_died_as_a_whole_goes_on_with_the_next_worker(fleet: Harness) -> None:
    workers = fleet.workers(2)
    fleet.busy_worker(tasks=2)
    fleet.actors.quick.push_many([fleet.actors.quick.message(i) for i in range(50)])
    for worker in workers:
        worker.kill()
    fleet.open_gate()

    fleet.worker()

    counters = fleet.settle(52)
    assert counters["completed"] == 52
    fleet.wait(lambda: len(fleet.store.fleet.workers()) == 1, what="the burial of both")


@pytest.mark.parametrize(
    ("order", "topology"),
    cases({"after the others": ("embedded", "rabbitmq"), "before the others": ("redis",)}, needs="freezes"),
    indirect=["topology"],
)
def test_a_frozen_worker_is_replaced_and_can_change_nothing_when_it_comes_back(fleets: Fleets, order: str) -> None:
    fleet = fleets(heartbeat_ttl=2)
    fleet.workers(2)
    failing = fleet.actors.gated.push(fleet.gate(), "fails").id
    tasks = [failing, fleet.actors.gated.push(fleet.gate()).id, fleet.actors.agated.push(fleet.gate()).id]
    fleet.wait(lambda: len(fleet.effects("began")) == 3, what="three running tasks")
    frozen = fleet.process_of(fleet.effects("began")[0].pid)
    owned = [e.task for e in fleet.effects("began") if e.pid == frozen.pid]
    before = frozen.identity

    frozen.signal(signal.SIGSTOP)
    for i in range(20):
        fleet.actors.quick.push(i)
    fleet.wait(lambda: sum(e.crashes > 0 for e in fleet.effects("began")) == len(owned), what="the re-runs")
    if order == "after the others":
        fleet.open_gate()
        fleet.wait(lambda: _ended(fleet) == 23, what="the end of everything in the living worker")
    frozen.signal(signal.SIGCONT)
    fleet.wait(lambda: before not in fleet.store.fleet.workers() and frozen.identity, what="its new identity")
    fleet.open_gate()

    fleet.wait(lambda: _ended(fleet) == 23, what="every end")
    fleet.wait(lambda: len(fleet.effects("ran")) + len(fleet.effects("cancelled")) >= 23 + len(owned), what="every run")
    counters = fleet.check(23)
    assert counters["failed"] == 1, fleet.report()
    assert counters["completed"] == 22
    assert counters["crashes"] == len(owned)
    for task in tasks:
        assert len({e.fence for e in fleet.effects("began", task)}) == (2 if task in owned else 1)
    _works_on(fleet, frozen, before)


ZOMBIE_POINTS = ("fetched", "claimed", "done", "committed", "before-fail", "failed", "hooks")


@pytest.mark.parametrize(
    ("point", "topology"),
    cases(
        {point: ("rabbitmq",) if point in ("fetched", "committed") else ("embedded",) for point in ZOMBIE_POINTS},
        needs="freezes",
    ),
    indirect=["topology"],
)
def test_a_worker_frozen_at(point: str, fleets: Fleets) -> None:
    """What it was about to do when it froze changes nothing after others went on, and nothing runs twice for it."""
    fleet = fleets(heartbeat_ttl=2)
    frozen = fleet.worker(threads=2, failpoints=f"{point}=stop:{fleet.marker(point)}")
    frozen.wait_ready()
    scenario = Scenario(fleet)
    scenario.push()
    fleet.wait(fleet.marker(point).exists, what=f"a worker frozen at {point}")
    before = next(iter(fleet.store.fleet.workers()))
    fleet.worker()
    scenario.settle()
    fleet.wait(lambda: before not in fleet.store.fleet.workers(), what="its being declared dead")

    frozen.signal(signal.SIGCONT)
    fleet.wait(lambda: frozen.identity not in ("", before), what="its return under a new identity")

    scenario.settle()
    _works_on(fleet, frozen, before)


def _ended(fleet: Harness) -> int:
    """Count completions and the one failure, which is retried after more than 5 s."""
    counters = fleet.store.counters()
    return counters.get("completed", 0) + counters.get("failed", 0)


def _works_on(fleet: Harness, worker: Process, before: str) -> None:
    for process in fleet.processes:
        if process is not worker:
            process.end()
    assert worker.identity not in ("", before)
    more = [fleet.actors.quick.push(i).id for i in range(5)]
    fleet.wait(lambda: all(fleet.effects("ran", task) for task in more), what="work of the worker that came back")
    assert {e.pid for task in more for e in fleet.effects("ran", task)} == {worker.pid}


def test_a_cancelled_async_task_is_discarded(fleet: Harness) -> None:
    worker = fleet.worker()
    task = fleet.actors.agated.push(fleet.gate()).id
    fleet.wait(lambda: fleet.effects("began", task), what="its start")

    assert fleet.store.fleet.tell(worker.identity, {"type": "cancel", "task": task})

    counters = fleet.settle(1)
    assert counters["discarded:cancelled"] == 1
    assert fleet.effects("cancelled", task)
    assert not fleet.effects("ran", task)


def test_a_worker_that_is_stopped_hands_its_tasks_over(fleet: Harness) -> None:
    """Dramatiq's own notice of a shutdown makes a hand-over: no crash, no failed attempt."""
    first = fleet.worker()
    task = fleet.actors.notified.push(fleet.gate()).id
    fleet.wait(lambda: fleet.effects("began", task), what="its start")
    fleet.worker().wait_ready()

    first.popen.terminate()

    fleet.wait(lambda: len(fleet.effects("began", task)) == 2, what="its second run")
    fleet.open_gate()
    counters = fleet.settle(1)
    assert counters["handed_over"] == 1
    assert counters.get("crashes", 0) == counters.get("failed", 0) == 0
    assert first.popen.wait(60) == 0
