"""`install()` on brokers that are not Relier's: Dramatiq's own, and one that nobody here knows."""

from __future__ import annotations

import pytest

from tests.integration.scenario import Scenario
from tests.third_party.brokers import KINDS
from tests.third_party.conftest import ForeignFleet

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_of_every_kind_complete_once(foreign_fleet: ForeignFleet) -> None:
    fleet = foreign_fleet
    fleet.workers(2)
    scenario = Scenario(fleet)
    scenario.push()

    scenario.settle()


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_workers_tasks_run_elsewhere(foreign_fleet: ForeignFleet) -> None:
    fleet = foreign_fleet
    victim = fleet.worker(threads=2)
    running = [fleet.actors.gated.push(fleet.gate()).id for _ in range(2)]
    fleet.wait(lambda: len(fleet.effects("began")) == 2, what="two running tasks")
    prefetched = [fleet.actors.quick.push(i).id for i in range(30)]
    fleet.worker().wait_settled_in()

    victim.kill()

    fleet.wait(lambda: sum(e.crashes > 0 for e in fleet.effects("began")) == 2, 30, "both running again")
    fleet.open_gate()
    counters = fleet.settle(32)
    assert counters["completed"] == 32
    assert counters["crashes"] == counters["resurrections"] == 2
    assert set(fleet.counted("ran")) == {*running, *prefetched}
    assert set(fleet.counted("ran").values()) == {1}
