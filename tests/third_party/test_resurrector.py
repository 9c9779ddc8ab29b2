"""A resurrector uses the workers' broker, or refuses to run."""

from __future__ import annotations

import re

import pytest

from tests.integration.harness import Harness
from tests.third_party.fleet import ForeignFleet

WRONG = re.compile(
    r"The workers use another broker \(tests\.third_party\.sqlite_broker\.SqliteBroker\) than this resurrector"
    r" \(redis at unix://\S+ dramatiq\)\. Refusing to (start|go on)\. Give it the module"
)


def _has_lease(fleet: Harness) -> bool:
    return any(lease.startswith("r|") for lease in fleet.store.fleet.leases().values())


def _queues_left(fleet: Harness) -> list[str]:
    """Return the queues of resurrectors on the fleet's broker."""
    assert isinstance(fleet, ForeignFleet)
    if fleet.rabbitmq is not None:
        return [name for name in fleet.rabbitmq.queues(fleet.where) if name.startswith("relier.")]
    with fleet.broker.cursor() as cursor:
        return [queue for (queue,) in cursor.execute("SELECT queue FROM messages WHERE queue LIKE 'relier.%'")]


@pytest.mark.parametrize("topology", ["plain-rabbitmq", "sqlite"], indirect=True)
def test_a_resurrector_gets_the_broker_from_the_workers_module(fleet: Harness) -> None:
    resurrector = fleet.resurrector()
    fleet.workers(2)
    fleet.wait(lambda: _has_lease(fleet), 60, "the resurrector's lease")
    victim = fleet.busy_worker(tasks=2)
    owned = sum(effect.pid == victim.pid for effect in fleet.effects("began"))

    victim.kill()

    fleet.wait(lambda: sum(e.crashes > 0 for e in fleet.effects("began")) == owned, 60, "all running again")
    fleet.open_gate()
    counters = fleet.settle(2)
    assert counters["completed"] == 2
    assert _has_lease(fleet)
    assert resurrector.stop() == 0
    assert _queues_left(fleet) == []


@pytest.mark.parametrize("topology", ["sqlite"], indirect=True)
def test_a_resurrector_without_the_workers_broker_refuses_to_start(fleet: Harness) -> None:
    fleet.worker().wait_ready()

    resurrector = fleet.resurrector(actors="")

    fleet.wait(lambda: resurrector.is_over, 60, "its refusal")
    assert resurrector.popen.returncode == 1
    found = WRONG.search(resurrector.text())
    assert found and found[1] == "start", resurrector.text()
    assert "Traceback" not in resurrector.text()


@pytest.mark.parametrize("topology", ["sqlite"], indirect=True)
def test_a_resurrector_that_started_first_leaves_to_workers_of_another_broker(fleet: Harness) -> None:
    resurrector = fleet.resurrector(actors="")
    fleet.wait(lambda: _has_lease(fleet), 60, "the resurrector's lease")
    fleet.workers(2)

    fleet.wait(lambda: resurrector.is_over, 60, "its end")

    assert resurrector.popen.returncode == 1
    found = WRONG.search(resurrector.text())
    assert found and found[1] == "go on", resurrector.text()
    fleet.actors.flaky.push(2)
    assert fleet.settle(1)["completed"] == 1
