"""Servers that go away, forget scripts or cut connections: nothing is lost or doubled, nobody is declared dead."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from tests.conformance.conftest import Fleets
from tests.conformance.topologies import Ground, where
from tests.faults.load import Load
from tests.integration.harness import Harness

#: How long (s) the store is away.
AWAY = 5.0
#: How often connections are cut, and how long (s) the fleet works in between.
CUTS, BETWEEN = 20, 0.15


@where(("embedded",))
def test_nothing_happens_when_the_store_freezes_for_a_while(private_ground: Ground, fleets: Fleets) -> None:
    def freeze(fleet: Harness) -> None:
        private_ground.store.stop()
        _pass(AWAY)
        private_ground.store.cont()

    _away(fleets(), freeze)


@where(needs="cuts")
def test_nothing_happens_when_the_store_is_killed_and_comes_back(private_ground: Ground, fleets: Fleets) -> None:
    def kill(fleet: Harness) -> None:
        private_ground.store.kill()
        _pass(AWAY)
        private_ground.store.restart()

    _away(fleets(), kill)


@where(("two-redises", "rabbitmq"), needs="cuts", never=("embedded", "redis", "sqlite"))
def test_nothing_happens_when_the_broker_is_killed_and_comes_back(private_ground: Ground, fleets: Fleets) -> None:
    def kill(fleet: Harness) -> None:
        private_ground.broker.kill()
        _pass(2.0)
        private_ground.broker.restart()

    _away(fleets(), kill)


@where(needs="cuts", never=("sqlite",))
def test_connections_to_the_broker_that_are_cut_are_invisible(ground: Ground, fleets: Fleets) -> None:
    def cut(fleet: Harness) -> None:
        for _ in range(CUTS):  # On a busy machine nobody may be connected again yet.
            fleet.wait(ground.cut, what="a connection to cut")
            _pass(BETWEEN)

    _away(fleets(), cut)


@where(("embedded", "redis"), never=("rabbitmq", "quorum", "plain-redis"))
def test_a_lost_script_cache_and_lost_presence_are_invisible(ground: Ground, fleets: Fleets) -> None:
    def harass(fleet: Harness) -> None:
        with ground.store.client() as client:
            for _ in range(15):
                client.script_flush()
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                client.script_flush()
                _pass(0.2)

    counters = _away(fleets(), harass)
    assert counters.get("refused", 0) == 0


def _away(fleet: Harness, trouble: Callable[[Harness], None]) -> dict[str, int]:
    """Let trouble come in the middle of a load with long tasks running; returns the counters."""
    fleet.workers(2)
    identities = {process.identity for process in fleet.processes}
    long = [fleet.actors.gated.push(fleet.gate()).id, fleet.actors.agated.push(fleet.gate()).id]
    fleet.wait(lambda: len(fleet.effects("began")) == 2, what="the long tasks")
    load = Load(fleet, flaky_every=60)
    with load.running():
        fleet.wait(lambda: len(fleet.effects("ran")) > 100, what="some work done")
        trouble(fleet)
        seen = len(fleet.effects("ran"))
        fleet.wait(lambda: len(fleet.effects("ran")) > seen + 100, 60, "work after the trouble")
    fleet.open_gate()

    # A push that failed may have arrived all the same: what was accepted decides.
    fleet.wait(lambda: set(long) | set(load.sent) <= set(fleet.counted("ran")), 60, "every task's run")
    accepted = fleet.wait(lambda: fleet.store.counters()["accepted"], what="counters")
    counters = fleet.settle(accepted)
    sent = len(load.sent) + len(long)
    assert sent <= counters["accepted"] <= sent + load.unsure, (load.unsure, fleet.report())
    assert counters["completed"] == counters["accepted"], fleet.report()
    assert counters.get("crashes", 0) == 0, fleet.report()
    assert set(fleet.store.fleet.workers()) == identities, fleet.report()
    assert all(not process.is_over for process in fleet.processes)
    _ran_once_each(fleet)
    return counters


def _ran_once_each(fleet: Harness) -> None:
    """Each attempt of a task ran once: a grant whose reply was lost was repeated, or released before it ran."""
    runs = Counter((effect.task, effect.attempt) for effect in fleet.effects("ran"))
    assert {run: count for run, count in runs.items() if count > 1} == {}, fleet.report()


def _pass(seconds: float) -> None:
    """Let time pass: it is the trouble itself, nothing is waited for."""
    time.sleep(seconds)
