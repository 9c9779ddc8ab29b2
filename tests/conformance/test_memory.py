"""Tasks that need more memory than there is."""

from __future__ import annotations

from tests.conformance.topologies import where
from tests.integration.harness import Harness


@where(("embedded",))
def test_a_task_that_runs_out_of_memory_fails_and_its_worker_goes_on(fleet: Harness) -> None:
    worker = fleet.worker(threads=3)
    task = fleet.actors.hoarding.push(400, "at once").id
    fleet.wait(lambda: fleet.store.counters().get("dead", 0) == 1, 60, "the task's end")
    others = [fleet.actors.quick.push(i).id for i in range(20)]

    counters = fleet.settle(21)

    assert fleet.dead_ones() == ["MemoryError"]
    assert counters["completed"] == 20
    assert counters.get("crashes", 0) == 0
    assert len(fleet.effects("began", task)) == 2
    assert {effect.pid for effect in fleet.effects()} == {worker.pid}
    assert fleet.counted("ran").keys() == set(others)


@where(("embedded",))
def test_a_worker_that_lost_a_thread_ends_in_order(fleet: Harness) -> None:
    """Dramatiq never replaces a thread, and what it held would wait as long as its process lives."""
    crippled = fleet.worker(threads=2)
    gated = fleet.actors.gated.push(fleet.gate()).id
    fleet.wait(lambda: fleet.effects("began", gated), what="its start")
    fleet.actors.crippling.push()
    fleet.wait(lambda: "A thread of this worker ended" in crippled.text(), 60, "the worker's notice")
    waiting = [fleet.actors.quick.push(i).id for i in range(10)]
    fleet.worker().wait_ready()
    fleet.open_gate()

    fleet.wait(lambda: crippled.is_over, 60, "its end")

    counters = fleet.settle(12)
    assert counters["completed"] == 12
    assert counters.get("crashes", 0) == 0
    assert all(fleet.effects("ran", task) for task in waiting)


@where(())
def test_a_task_that_leaves_no_memory_to_anybody_is_accounted_for(fleet: Harness) -> None:
    """Whether its worker gets over it or dies of it: nothing is stuck, and every other task completes."""
    fleet.worker(threads=3)
    beside = [fleet.actors.gated.push(fleet.gate()).id]
    fleet.wait(lambda: fleet.effects("began", beside[0]), what="a task beside it")
    fleet.actors.hoarding.push(200, "slowly")
    beside += [fleet.actors.quick.push(i).id for i in range(20)]

    def is_quiet() -> bool:
        if all(process.is_over for process in fleet.processes):  # as a supervisor does
            fleet.worker().wait_ready()
        if len(fleet.effects("began")) > 1:
            fleet.open_gate()
        return not fleet.unsettled(22)

    fleet.wait(is_quiet, 90, "the end of every task")

    counters = fleet.check(22)
    assert counters["dead"] == 1
    assert counters["completed"] == 21
    assert fleet.counted("ran").keys() == set(beside)
