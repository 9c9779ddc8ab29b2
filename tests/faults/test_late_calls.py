"""What was sent over a connection that was given up never takes effect later, however long the network held it back."""

from __future__ import annotations

from tests.conformance.conftest import Fleets
from tests.conformance.topologies import where
from tests.faults.links import linked
from tests.faults.load import Load
from tests.faults.proxy import TO_SERVER


@where(("embedded",), never=("rabbitmq", "quorum"))
def test_calls_that_arrive_late_change_nothing(fleets: Fleets) -> None:
    """Claims, fetches and commits arrive after their tasks were taken by others, ended, and were forgotten."""
    fleet = fleets(redis_socket_timeout=1)
    with linked(fleet, threads=8) as late:
        link = late.store
        late.process.wait_ready()
        fleet.worker().wait_ready()
        with Load(fleet).running() as load:
            fleet.wait(lambda: len(fleet.effects("ran")) > 100, what="some work done")
            link.half_open(TO_SERVER, new=False)
            fleet.wait(lambda: link.seen["held to server"] >= 3, what="calls that are held back")
            before = link.seen["connected"]
            fleet.wait(lambda: link.seen["connected"] >= before + 3, what="new connections")
            seen = len(fleet.effects("ran"))
            fleet.wait(lambda: len(fleet.effects("ran")) > seen + 300, what="work in the meantime")
            link.heal()
            seen = len(fleet.effects("ran"))
            fleet.wait(lambda: len(fleet.effects("ran")) > seen + 100, what="work afterwards")

        counters = fleet.settle(len(load.sent))

    assert counters["completed"] == len(load.sent), fleet.report()
    assert set(fleet.counted("ran")) == set(load.sent)
    assert set(fleet.counted("ran").values()) == {1}, fleet.report()


@where(("embedded",), never=("plain-redis", "plain-rabbitmq", "sqlite"))
def test_the_commit_of_a_run_that_was_taken_over_arrives_late(fleets: Fleets) -> None:
    """The task is another worker's by then, and stays so: the fence of the commit is stale."""
    fleet = fleets(redis_socket_timeout=1, heartbeat_ttl=2)
    with linked(fleet) as late:
        task = fleet.actors.two_gates.push(fleet.gate("first"), fleet.gate("second")).id
        fleet.wait(lambda: fleet.effects("began", task), what="its start")
        before = late.process.identity
        fleet.worker().wait_ready()

        late.store.half_open(TO_SERVER)
        fleet.open_gate("first")
        fleet.wait(lambda: len(fleet.effects("began", task)) == 2, what="its second run")
        late.heal()
        fleet.wait(lambda: fleet.store.counters().get("refused"), what="the commit that comes late")
        fleet.wait(lambda: late.process.identity not in ("", before), what="the return of the late one")

        assert fleet.store.status(task) == "running", fleet.report()
        fleet.open_gate("second")
        counters = fleet.settle(1)
    assert counters["completed"] == counters["crashes"] == 1, fleet.report()
