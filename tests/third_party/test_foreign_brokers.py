"""What is particular to brokers that are not Relier's; what holds everywhere is in the conformance suite."""

from __future__ import annotations

import pytest

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
