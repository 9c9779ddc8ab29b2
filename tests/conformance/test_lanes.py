"""Recovery pools, fleets of several versions, and queues that nobody consumes."""

from __future__ import annotations

from tests.conformance.conftest import Fleets
from tests.conformance.topologies import FOREIGN, where
from tests.integration.harness import Harness

OLD_RELEASE = "tests.integration.old_worker_actors"


@where(needs="prefetched", never=FOREIGN)
def test_a_recovery_pool_runs_what_crashed_and_results_stay_in_place(fleets: Fleets) -> None:
    fleet = fleets(recovery_queue="re-queue")
    fleet.resurrector()
    victim = fleet.worker()
    message = fleet.actors.answering.message(fleet.gate())
    fleet.broker.enqueue(message)
    fleet.wait(lambda: fleet.effects("began"), 30, "its start")
    victim.kill()
    wait_for_log(fleet, "Nobody consumes the recovery queue; its tasks go to their own queues.")
    pool = fleet.worker(queues=["re-queue"])

    fleet.wait(lambda: {e.pid for e in fleet.effects("began")} == {victim.pid, pool.pid}, 30, "its run in the pool")
    fleet.open_gate()

    assert message.get_result(backend=fleet.broker.get_results_backend(), block=True, timeout=30_000) == 42
    quick = fleet.actors.quick.push(1).id
    ordinary = fleet.worker()
    fleet.settle(2)
    assert {e.pid for e in fleet.effects("ran", quick)} == {ordinary.pid}


@where(needs="prefetched", never=FOREIGN)
def test_without_a_pool_what_crashed_goes_to_its_own_queue_and_somebody_is_told(fleets: Fleets) -> None:
    fleet = fleets(recovery_queue="re-queue")
    fleet.resurrector()
    victim = fleet.worker()
    task = fleet.actors.gated.push(fleet.gate()).id
    fleet.wait(lambda: fleet.effects("began", task), 30, "its start")
    fleet.worker().wait_ready()
    victim.kill()
    fleet.open_gate()
    fleet.settle(1)
    wait_for_log(fleet, "Nobody consumes the recovery queue; its tasks go to their own queues.")


@where(never=FOREIGN)
def test_tasks_of_a_new_actor_reach_the_worker_that_has_it_past_those_that_lack_it(fleets: Fleets) -> None:
    fleet = fleets(unknown_actor_grace=1)
    fleet.resurrector()
    fleet.worker(actors=OLD_RELEASE).wait_ready()
    lost = fleet.actors.told.push("too early").id
    fleet.wait(lambda: fleet.dead_ones() == ["ActorNotFound"], 30, "a dead letter")
    wait_for_log(fleet, "Received unregistered task of type 'told'")

    fleet.worker().wait_ready()
    tasks = [fleet.actors.told.push(i).id for i in range(20)]
    assert fleet.store.tasks.hold(lost, "release", "a test")[0] == "released"

    counters = fleet.settle(21)
    assert set(fleet.counted("told")) == {lost, *tasks}
    assert (counters["completed"], counters["dead"]) == (21, 1)


@where(usual=["embedded"], never=FOREIGN)
def test_what_nobody_can_run_waits_at_no_cost_and_goes_on_when_somebody_comes(fleet: Harness) -> None:
    fleet.resurrector()
    fleet.worker(queues=["re-queue"]).wait_ready()  # It consumes nothing else.
    for i in range(5):
        fleet.actors.quick.send_with_options(args=(i,), delay=1)
    fleet.wait(lambda: fleet.store.counters().get("parked", 0) == 5, 30, "parked tasks")
    wait_for_log(fleet, "Nobody consumes a queue with the actors of its tasks; they wait.")

    fleet.worker()

    counters = fleet.settle(5)
    assert (counters["completed"], counters["parked"]) == (5, 5)


def wait_for_log(fleet: Harness, sentence: str) -> None:
    """Wait until some process has said it."""
    fleet.wait(lambda: any(sentence in process.text() for process in fleet.processes), 30, f"a log line: {sentence}")
