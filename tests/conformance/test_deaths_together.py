"""Several processes that die at once, and one of a fleet that dies alone."""

from __future__ import annotations

from collections.abc import Callable

from tests.conformance.conftest import Fleets
from tests.conformance.topologies import where
from tests.integration.harness import Harness, Process
from tests.processes import alive


def _watcher(fleet: Harness) -> str:
    """Return the identity of whoever watches the fleet."""
    _, _, rest = fleet.store.fleet.leases().get("watch", "").partition("|")
    return rest.partition("|")[0]


def _kill_with_the_watcher(fleet: Harness, is_watcher: Callable[[Process], bool], others: int) -> None:
    """Kill the watcher and so many others that run tasks, all at the same moment; the rest goes on."""
    tasks = [fleet.actors.gated.push(fleet.gate()).id for _ in range(12)]  # More than are prefetched.
    fleet.wait(lambda: len({effect.pid for effect in fleet.effects("began")}) == 3, what="three busy workers")
    (watcher,) = (process for process in fleet.processes if is_watcher(process))
    busy = {effect.pid for effect in fleet.effects("began")} - {watcher.pid}
    dead = [watcher, *(fleet.process_of(pid) for pid in sorted(busy)[:others])]
    lost = {effect.task for effect in fleet.effects("began") if effect.pid in {process.pid for process in dead}}

    for process in dead:
        process.kill()

    fleet.open_gate()
    counters = fleet.settle(12, 60)
    assert counters["completed"] == 12
    assert counters["crashes"] == len(lost) == 2
    assert fleet.counted("ran") == dict.fromkeys(tasks, 1)


@where(("embedded",))
def test_a_worker_that_watches_and_another_one_die_together(fleet: Harness) -> None:
    fleet.workers(3, threads=1)
    fleet.wait(lambda: _watcher(fleet), what="a watcher")
    watcher = _watcher(fleet)
    _kill_with_the_watcher(fleet, lambda process: process.identity == watcher, 1)


@where(("rabbitmq",))
def test_the_resurrector_and_two_of_three_workers_die_together(fleet: Harness) -> None:
    resurrector = fleet.resurrector()
    fleet.workers(3, threads=1)
    fleet.wait(lambda: _watcher(fleet) == resurrector.identity != "", 60, "its lease")
    _kill_with_the_watcher(fleet, lambda process: process is resurrector, 2)


@where(("embedded",))
def test_a_process_of_dramatiqs_that_is_killed_alone(fleets: Fleets) -> None:
    """Dramatiq stops its siblings; what those run ends, what the dead one ran goes to others."""
    fleet = fleets()
    pair = fleet.worker(processes=2, threads=2)
    fleet.wait(lambda: len(fleet.store.fleet.workers()) == 2, 60, "two processes")
    tasks = [fleet.actors.gated.push(fleet.gate()).id for _ in range(12)]  # More than are prefetched.
    fleet.wait(lambda: len(fleet.effects("began")) == 4, what="four running tasks")
    victim = pair.pid
    lost = {effect.task for effect in fleet.effects("began") if effect.pid == victim}
    (sibling,) = {effect.pid for effect in fleet.effects("began")} - {victim}
    fleet.worker().wait_ready()

    pair.kill()

    fleet.wait(lambda: fleet.store.counters().get("crashes", 0) == 2, 60, "the burial")
    assert alive(sibling)  # Dramatiq asked it to stop; it ends what it runs first.
    fleet.open_gate()
    counters = fleet.settle(12)
    assert counters["completed"] == 12
    assert counters["crashes"] == len(lost) == 2
    assert fleet.counted("ran") == dict.fromkeys(tasks, 1)
    fleet.wait(lambda: pair.is_over, 60, "the end of Dramatiq's main process")
    assert not alive(sibling)
