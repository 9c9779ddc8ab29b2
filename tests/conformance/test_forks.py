"""Tasks that fork: the worker's death shows although a child lives on, and no child acts for the worker."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import Fleets
from tests.conformance.topologies import cases, where
from tests.integration.harness import Harness
from tests.processes import alive


@pytest.mark.parametrize(
    ("how", "topology"), cases({"fork": ("rabbitmq",), "raw": ("embedded",)}, needs="prefetched"), indirect=["topology"]
)
def test_a_killed_workers_task_runs_again_though_a_forked_child_lives_on(fleets: Fleets, how: str) -> None:
    """A raw fork keeps the worker's sockets open: then beat and pulse tell, after the TTL."""
    fleet = fleets(heartbeat_ttl=2)
    victim = fleet.worker()
    task = fleet.actors.forking.push(fleet.gate(), how).id
    fleet.wait(lambda: fleet.effects("child", task), 60, "its child")
    (child,) = (effect.detail for effect in fleet.effects("child", task))
    waiting = [fleet.actors.quick.push(i).id for i in range(10)]
    fleet.worker().wait_ready()

    victim.kill()

    fleet.wait(lambda: len(fleet.effects("child", task)) == 2, 60, "its second run")
    assert alive(child)
    fleet.open_gate()
    counters = fleet.settle(11)
    assert counters["completed"] == 11
    assert counters["crashes"] == 1
    assert set(fleet.counted("ran").values()) == {1}
    assert fleet.counted("ran").keys() == {task, *waiting}
    fleet.open_gate("gate-child")


@where(("embedded",))
def test_a_forked_child_that_comes_back_from_its_task_ends_there(fleet: Harness) -> None:
    worker = fleet.worker(threads=3)
    a = fleet.actors
    expected = {"return": 0, "raise": 1, "exit": 7}
    forked = {a.escaping.push(how).id: code for how, code in expected.items()}
    forked |= {a.aescaping.push(how).id: code for how, code in expected.items()}
    spawning = a.spawning.push().id
    others = [a.quick.push(i).id for i in range(20)]

    counters = fleet.settle(27)

    assert counters["completed"] == 27
    assert {effect.task: effect.detail for effect in fleet.effects("child")} == forked
    assert set(fleet.counted("ran").values()) == {1}
    assert fleet.counted("ran").keys() == {*forked, spawning, *others}
    assert {effect.pid for effect in fleet.effects()} == {worker.pid}
    (spawned,) = fleet.effects("ran", spawning)
    assert spawned.detail == [-15, [0, 1, 4, 9, 16], "done"]
