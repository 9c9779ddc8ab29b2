"""Clocks that are wrong by an hour, in workers and in Redis: they decide nothing about life, death and ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.conformance.conftest import Fleets
from tests.conformance.topologies import RabbitmqFleet, where
from tests.conftest import PrivateServers
from tests.faults.clock import HOUR, FakeClock
from tests.faults.load import Load
from tests.integration.harness import Harness
from tests.integration.scenario import Scenario
from tests.servers import RedisServer

SETTINGS = {"heartbeat_ttl": 2}


@where(("embedded",))
def test_workers_whose_clocks_are_an_hour_off(fleets: Fleets, faketime: Path, tmp_path: Path) -> None:
    fleet = fleets(**SETTINGS)
    for offset in (HOUR, -HOUR):
        with FakeClock(tmp_path, offset).applied():
            fleet.worker().wait_settled_in()
    fleet.worker().wait_settled_in()
    everybody = set(fleet.store.fleet.workers())

    scenario = Scenario(fleet)
    scenario.push()
    counters = scenario.settle()

    assert counters.get("crashes", 0) == 0, fleet.report()
    assert set(fleet.store.fleet.workers()) == everybody, fleet.report()
    pushed = _push_until_everybody_ran_one(fleet)
    counters = fleet.settle(scenario.expected + pushed)
    assert counters.get("crashes", 0) == 0, fleet.report()


def _push_until_everybody_ran_one(fleet: Harness) -> int:
    """Return how many tasks that took."""
    everybody, pushed = {process.pid for process in fleet.processes}, 0

    def have_run() -> bool:
        nonlocal pushed
        fleet.actors.quick.push(1)
        pushed += 1
        return everybody <= {effect.pid for effect in fleet.effects("ran")}

    fleet.wait(have_run, what="a task run by each worker")
    return pushed


@pytest.fixture
def clock(tmp_path: Path, faketime: Path) -> FakeClock:
    return FakeClock(tmp_path)


@pytest.fixture
def server(private_server: PrivateServers, clock: FakeClock) -> RedisServer:
    with clock.applied():
        return private_server("embedded")


@pytest.fixture(params=["redis", pytest.param("rabbitmq", marks=pytest.mark.slow)])
def fleet(request: pytest.FixtureRequest, server: RedisServer, tmp_path: Path) -> Iterator[Harness]:
    """A fleet whose store's clock can jump."""
    if request.param == "redis":
        made = Harness(server, tmp_path, **SETTINGS)
    else:
        rabbitmq, vhost = request.getfixturevalue("rabbitmq"), request.getfixturevalue("vhost")
        made = RabbitmqFleet(server, tmp_path, rabbitmq=rabbitmq, broker_url=vhost, **SETTINGS)
    with closing(made):
        yield made


@pytest.mark.parametrize("jumps", [(HOUR, 0), (-HOUR, 0)], ids=["ahead and back", "back and ahead"])
def test_the_clock_of_redis_jumps(
    fleet: Harness, server: RedisServer, clock: FakeClock, jumps: tuple[int, ...]
) -> None:
    """Nobody is declared dead, nothing is lost or doubled; and who dies at a jump is recovered from at once."""
    fleet.workers(2)
    everybody = set(fleet.store.fleet.workers())
    long = [fleet.actors.gated.push(fleet.gate()).id for _ in range(3)]
    fleet.wait(lambda: len(fleet.effects("began")) == 3, what="long tasks")
    with Load(fleet, 0.01).running() as load:
        for offset in jumps:
            _jump(fleet, server, clock, offset)
            _work_goes_on(fleet, set(load.sent), len(fleet.effects("ran")))
        assert set(fleet.store.fleet.workers()) == everybody, fleet.report()
        assert fleet.store.counters().get("crashes", 0) == 0, fleet.report()

        victim = fleet.process_of(fleet.effects("began")[0].pid)
        owned = {effect.task for effect in fleet.effects("began") if effect.pid == victim.pid}
        victim.kill()
        _jump(fleet, server, clock, jumps[0])
        fleet.wait(
            lambda: owned <= {e.task for e in fleet.effects("began") if e.crashes}, what="the second runs of its tasks"
        )
    fleet.open_gate()
    counters = fleet.settle(len(load.sent) + len(long))
    assert load.unsure == 0
    assert counters["completed"] == len(load.sent) + len(long), fleet.report()


def _work_goes_on(fleet: Harness, sent: set[str], ran: int) -> None:
    fleet.wait(lambda: sent <= set(fleet.counted("ran")), what="the work of before the jump")
    fleet.wait(lambda: len(fleet.effects("ran")) > ran + 100, what="work after it")


def _jump(fleet: Harness, server: RedisServer, clock: FakeClock, offset: int) -> None:
    clock.set(offset)
    with server.client() as client:
        fleet.wait(lambda: clock.is_told_by(client.time()[0]), what=f"a clock that is {offset} s ahead")
