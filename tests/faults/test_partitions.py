"""One worker is cut off from the store, or from the broker, in one direction or both."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import pytest

from tests.conformance.conftest import Fleets
from tests.conformance.topologies import cases
from tests.faults.links import Linked, linked
from tests.faults.load import Load
from tests.faults.proxy import TO_CLIENT, TO_SERVER
from tests.integration.harness import Harness, Process

BOTH = "both"
#: The directions in which nothing is let through.
WAYS: dict[str, Sequence[str]] = {TO_SERVER: (TO_SERVER,), TO_CLIENT: (TO_CLIENT,), BOTH: (TO_SERVER, TO_CLIENT)}

SETTINGS = {"heartbeat_ttl": 2, "redis_socket_timeout": 1, "resurrection_claim_grace_period": 3}


@pytest.mark.parametrize(
    ("ways", "topology"),
    cases({TO_SERVER: ("embedded",), TO_CLIENT: ("embedded",), BOTH: ("rabbitmq",)}, needs="prefetched"),
    indirect=["topology"],
)
def test_a_worker_that_is_cut_off_from_the_store(fleets: Fleets, ways: str) -> None:
    """The others take its tasks over; it can change nothing, and works on by itself once the network is back."""
    fleet = fleets(**SETTINGS)
    with linked(fleet) as alone:
        alone.process.wait_ready()
        other = fleet.worker(threads=12)
        other.wait_ready()
        with Load(fleet, 0.01).running() as load:
            owned = _occupy(fleet, alone, other)
            before = alone.process.identity

            alone.store.half_open(*WAYS[ways])
            sent = set(load.sent)
            fleet.wait(lambda: before not in fleet.store.fleet.workers(), what="the burial of the one that is cut off")
            _wait_for(fleet, owned, "began", crashes=1)
            _wait_for(fleet, sent, "ran")
            fleet.open_gate()
            alone.heal()

            fleet.wait(lambda: alone.process.identity not in ("", before), what="its return under a new identity")
            _wait_for_work(fleet, alone)
        _check(fleet, load)


@pytest.mark.parametrize(
    ("ways", "topology"),
    cases({TO_SERVER: ("rabbitmq",), TO_CLIENT: (), BOTH: ()}, never=("embedded", "redis", "plain-redis", "sqlite")),
    indirect=["topology"],
)
def test_a_worker_that_is_cut_off_from_the_broker(fleets: Fleets, ways: str) -> None:
    """It lives on: it ends what it runs, leaves work and sweeping to the others, and goes on when it heals."""
    fleet = fleets(**SETTINGS)
    with linked(fleet) as alone:
        alone.process.wait_settled_in()  # So it is the one that sweeps.
        other = fleet.worker(threads=12)
        other.wait_ready()
        identity = alone.process.identity
        with Load(fleet, 0.01).running() as load:
            owned = _occupy(fleet, alone, other)

            alone.broker.half_open(*WAYS[ways])
            fleet.open_gate()
            _wait_for(fleet, owned, "ran")
            due = {fleet.actors.quick.send_with_options(args=(1,), delay=100).message_id for _ in range(10)}
            _wait_for(fleet, due, "ran")
            load.sent.extend(due)
            alone.heal()

            _wait_for_work(fleet, alone)
        assert alone.process.identity == identity
        counters = _check(fleet, load)
    assert counters.get("crashes", 0) == 0, fleet.report()


def _occupy(fleet: Harness, worker: Linked, other: Process) -> set[str]:
    """Push tasks that run until the gate opens; returns those that the worker runs."""
    pid = worker.process.pid

    def running() -> set[str]:
        return {e.task for e in fleet.effects("began") if e.pid == pid and e.detail == fleet.gate()}

    other.signal(signal.SIGSTOP)  # So that it does not take them all.
    try:
        for _ in range(4):
            fleet.actors.gated.push(fleet.gate())
        fleet.wait(running, what="a task that the worker runs")
    finally:
        other.signal(signal.SIGCONT)
    return running()


def _wait_for(fleet: Harness, tasks: set[str], what: str, crashes: int = 0) -> None:
    """Wait until each of the tasks left an effect, after so many crashes at least."""
    fleet.wait(
        lambda: tasks <= {effect.task for effect in fleet.effects(what) if effect.crashes >= crashes},
        what=f"tasks that {what}",
    )


def _wait_for_work(fleet: Harness, worker: Linked) -> None:
    """Wait until the worker runs new tasks."""
    pid = worker.process.pid

    def count() -> int:
        return sum(effect.pid == pid for effect in fleet.effects("ran"))

    seen = count()
    fleet.wait(lambda: count() > seen + 20, what="work of the worker that was cut off")


def _check(fleet: Harness, load: Load) -> dict[str, int]:
    """Each task has one end, and nothing is stuck."""
    assert load.unsure == 0
    tasks = set(load.sent) | set(fleet.counted("began"))
    counters = fleet.settle(len(tasks))
    assert counters["completed"] == len(tasks), fleet.report()
    assert set(fleet.counted("ran")) == tasks
    return counters
