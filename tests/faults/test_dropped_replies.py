"""A call was carried out, but its reply is lost with the connection: nothing is done twice, nothing is forgotten."""

from __future__ import annotations

from relier.store.scripts import script
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import where
from tests.faults.links import Linked, linked
from tests.integration.harness import Harness

#: The store's scripts on a task's trip.
STORE = ("claim", "commit", "fail", "settle", "due", "mark_published")
#: Those of Relier's Redis broker: fetch and acknowledgement are one.
BROKER = ("exchange", "publish")
#: How AMQP names the confirmation of a publish, basic.ack.
CONFIRMATION = bytes([0, 60, 0, 80])


@where(("embedded",), never=("plain-redis", "plain-rabbitmq", "sqlite"))
def test_every_reply_may_be_lost_after_the_call_was_carried_out(fleets: Fleets) -> None:
    fleet = fleets(redis_socket_timeout=2, resurrection_claim_grace_period=5)
    with linked(fleet) as worker:
        worker.process.wait_ready()
        pushed = 0
        for name in STORE:
            worker.store.drop_reply(request=script(name).sha.encode())
            pushed += _work_until(fleet, worker, "store")
        if fleet.settings.broker_url is None:
            for name in BROKER:
                worker.broker.drop_reply(request=script(name, "relier.brokers").sha.encode())
                pushed += _work_until(fleet, worker, "broker")
        elif fleet.settings.broker_url.startswith("amqp"):
            worker.broker.drop_reply(reply=CONFIRMATION)
            pushed += _work_until(fleet, worker, "broker")

        counters = fleet.settle(pushed)

    assert counters["completed"] == pushed, fleet.report()
    assert counters.get("crashes", 0) == 0, fleet.report()
    runs = {(effect.task, effect.attempt) for effect in fleet.effects("ran")}
    assert len(runs) == len(fleet.effects("ran")), fleet.report()
    assert len({task for task, _ in runs}) == pushed


def _work_until(fleet: Harness, worker: Linked, link: str) -> int:
    """Push tasks of each kind until a reply was dropped; returns how many tasks."""
    proxy = worker.store if link == "store" else worker.broker
    wanted, pushed = proxy.seen["replies dropped"] + 1, 0

    def dropped() -> bool:
        nonlocal pushed
        for actor in (fleet.actors.quick, fleet.actors.aquick, fleet.actors.flaky):
            actor.push(1)
            pushed += 1
        return proxy.seen["replies dropped"] >= wanted

    fleet.wait(dropped, what="a reply that is dropped")
    proxy.heal()
    return pushed
