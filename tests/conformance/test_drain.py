"""A worker that goes out of service: others run at once what it had not begun, and soon what it cannot end in time."""

from __future__ import annotations

import time

from benchmarks.deploy import Deploy
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import Ground, where
from tests.integration.harness import Harness, Process, ids
from tests.patience import UNHURRIED
from tests.processes import alive

#: Longer than any test.
FOR_EVER = 600


def _fed_worker(
    fleet: Harness, gated: int = 1, quick: int = 6, threads: int = 0
) -> tuple[Process, list[str], list[str]]:
    """Return a worker whose threads all run tasks, the gated ones of these, and what it has fetched besides."""
    worker = fleet.worker(threads=threads or gated)
    running = ids(fleet.actors.gated.push(fleet.gate()) for _ in range(gated))
    fleet.wait(lambda: len(fleet.effects("began")) == (threads or gated), what="running tasks")
    fetched = ids(fleet.actors.quick.push(i) for i in range(quick))
    return worker, running, fetched


def _uncounted(counters: dict[str, int], *names: str) -> None:
    assert [counters.get(name, 0) for name in names] == [0] * len(names), counters


@where()
def test_what_a_draining_worker_had_only_fetched_or_was_told_to_interrupt_runs_elsewhere_at_once(
    fleets: Fleets,
) -> None:
    fleet = fleets(graceful_shutdown_timeout=FOR_EVER)
    notified = fleet.actors.notified.push(fleet.gate("notified")).id
    worker, running, fetched = _fed_worker(fleet, threads=2)
    pid = worker.pid
    idle = fleet.worker()
    idle.wait_ready()

    worker.popen.terminate()

    fleet.wait(lambda: set(fleet.counted("ran")) == set(fetched), what="the fetched tasks")
    assert {effect.pid for effect in fleet.effects("ran")} == {idle.pid}
    fleet.wait(lambda: len(fleet.effects("began", notified)) == 2, what="the interrupted task")
    assert [effect.pid for effect in fleet.effects("began", notified)] == [pid, idle.pid]
    assert alive(pid)
    fleet.open_gate()
    assert worker.popen.wait(60) == 0
    fleet.open_gate("notified")
    counters = fleet.settle(8)
    assert [effect.pid for effect in fleet.effects("ran", running[0])] == [pid]
    assert fleet.counted("ran") == dict.fromkeys([notified, *running, *fetched], 1)
    assert counters["handed_over"] == 1
    _uncounted(counters, "crashes", "failed", "refused")


@where()
def test_what_still_runs_in_the_end_is_handed_over(fleets: Fleets) -> None:
    fleet = fleets(graceful_shutdown_timeout=0.5)
    fleet.environ |= UNHURRIED
    worker = fleet.worker(threads=3)
    gated, agated = fleet.actors.gated.push(fleet.gate()).id, fleet.actors.agated.push(fleet.gate()).id
    sleeping = fleet.actors.short.push(FOR_EVER).id
    tasks = [gated, agated, sleeping]
    fleet.wait(lambda: len(fleet.effects("began")) == 3, what="running tasks")
    first = worker.pid
    second = fleet.worker(threads=3, graceful_shutdown_timeout=0)
    second.wait_settled_in()

    worker.popen.terminate()

    fleet.wait(lambda: all(len(fleet.effects("began", task)) == 2 for task in tasks), what="their second runs")
    assert worker.popen.wait(60) == 0, worker.text()
    assert not alive(first)
    assert [effect.pid for effect in fleet.effects("cancelled", agated)] == [first]
    assert {effect.attempt + effect.crashes for effect in fleet.effects("began")} == {0}
    assert "Time is up: handing over what still runs." in worker.text()
    fleet.open_gate()
    fleet.wait(lambda: len(fleet.effects("ran")) == 2, what="the end of the gated")
    assert fleet.counted("ran") == {gated: 1, agated: 1}
    _uncounted(fleet.store.counters(), "crashes", "failed")
    assert second.stop() == 0, second.text()  # No wait at all: what sleeps is handed over again.
    assert fleet.store.counters()["handed_over"] >= 4
    assert fleet.store.fleet.workers() == {}


@where(("embedded",))
def test_at_a_second_signal_what_runs_is_put_back_like_a_dead_workers(fleets: Fleets) -> None:
    fleet = fleets(graceful_shutdown_timeout=FOR_EVER)
    worker, running, fetched = _fed_worker(fleet)
    assert worker.pid
    other = fleet.worker()
    other.wait_settled_in()
    worker.popen.terminate()
    fleet.wait(lambda: len(fleet.effects("ran")) == len(fetched), what="the fetched tasks")

    first = worker.pid
    asked = time.monotonic()
    fleet.wait(lambda: time.monotonic() - asked > 1.5, what="the time within which two signals are one wish")
    worker.popen.terminate()
    assert worker.popen.wait(60) == 1
    assert not alive(first)
    fleet.wait(lambda: len(fleet.effects("began", running[0])) == 2, what="the second run")
    fleet.open_gate()
    counters = fleet.settle(7)
    assert counters["crashes"] == 1


@where(("embedded",))
def test_a_worker_that_cannot_reach_the_store_ends_and_nothing_is_lost(fleets: Fleets, private_ground: Ground) -> None:
    fleet = fleets(graceful_shutdown_timeout=0.5)
    worker, running, fetched = _fed_worker(fleet, gated=2)
    assert worker.pid
    private_ground.store.kill()

    assert worker.stop() == 1

    assert "Not everything could be handed over" in worker.text()
    private_ground.store.restart()
    fleet.worker().wait_ready()
    fleet.open_gate()
    counters = fleet.settle(8)
    assert counters["crashes"] == 2
    assert set(fleet.counted("ran")) == {*running, *fetched}


@where((), never=("plain-redis", "plain-rabbitmq", "sqlite", "quorum"))
def test_a_worker_waits_for_a_store_that_comes_back_in_time(fleets: Fleets, private_ground: Ground) -> None:
    fleet = fleets(graceful_shutdown_timeout=FOR_EVER)
    worker, running, fetched = _fed_worker(fleet, gated=2)
    assert worker.pid
    private_ground.store.kill()
    worker.popen.terminate()
    fleet.open_gate()
    fleet.wait(lambda: len(fleet.effects("ran")) == 2, what="the end of their code")
    assert not worker.is_over
    private_ground.store.restart()

    assert worker.popen.wait(60) == 0, worker.text()

    _uncounted(fleet.store.counters(), "crashes", "handed_over")
    assert fleet.store.counters()["completed"] == 2
    fleet.worker()
    fleet.settle(8)
    assert fleet.counted("ran") == dict.fromkeys([*running, *fetched], 1)


@where((), never=("embedded", "redis", "sentinel", "cluster", "plain-redis", "sqlite"))
def test_a_worker_that_cannot_reach_the_broker_hands_over_all_the_same(fleets: Fleets, private_ground: Ground) -> None:
    fleet = fleets(graceful_shutdown_timeout=0.5)
    fleet.environ |= UNHURRIED
    worker, running, fetched = _fed_worker(fleet, gated=2)
    assert worker.pid
    private_ground.broker.kill()

    assert worker.stop() == 0, worker.text()

    private_ground.broker.restart()
    fleet.worker().wait_ready()
    fleet.open_gate()
    counters = fleet.settle(8)
    assert counters["handed_over"] == 2
    _uncounted(counters, "crashes")
    assert set(fleet.counted("ran")) == {*running, *fetched}


@where(("rabbitmq",))
def test_a_rolling_restart_under_load_loses_nothing_and_commits_nothing_twice(fleet: Harness) -> None:
    fleet.environ |= UNHURRIED
    deploy = Deploy(fleet, workers=2, rate=10, seconds=0.5)

    assert deploy.run(1) == []

    assert deploy.restarts == 2
    supervisor = deploy.fleet.processes[0]
    assert supervisor.text().count("A worker is restarted.") == 2, supervisor.text()
    assert "A worker process ended; starting another." not in supervisor.text()
