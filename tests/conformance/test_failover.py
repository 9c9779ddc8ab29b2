"""The loss of a master under load costs nothing that a replica had; what it did cost is noticed and told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relier.rollback_checks import rollback_check
from relier.store.tide import rollbacks
from tests import sources
from tests.conftest import skip
from tests.failover import Failover
from tests.integration.harness import Harness
from tests.servers.groups import ClusterGroup, Group, Member
from tests.waiting import wait_until


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    try:
        found = sources.start(request.param, private=True)
    except sources.Unavailable as error:
        skip(request, error)
    assert isinstance(found, Group)
    with closing(found):
        yield found


@pytest.fixture
def fleet(group: Group, tmp_path: Path) -> Iterator[Harness]:
    with closing(Harness(group, tmp_path)) as fleet:
        yield fleet


def freeze(master: Member) -> None:
    """Freeze it until the others have gone on without it; then it becomes a replica."""
    master.stop()
    threading.Timer(6.0, master.cont).start()


def victim_of(group: Group, fleet: Harness, key: str) -> Member:
    return group.owner(key) if isinstance(group, ClusterGroup) else group.masters()[0]


MESSAGES, FLEET = "{dramatiq}", "{00}"

LOSSES = [
    pytest.param("sentinel", Member.kill, MESSAGES, id="sentinel-killed"),
    pytest.param("sentinel", freeze, MESSAGES, id="sentinel-frozen", marks=pytest.mark.slow),
    pytest.param("cluster-replicas", Member.kill, MESSAGES, id="cluster-killed-messages", marks=pytest.mark.slow),
    pytest.param("cluster-replicas", Member.kill, FLEET, id="cluster-killed-fleet", marks=pytest.mark.slow),
    pytest.param("cluster-replicas", freeze, FLEET, id="cluster-frozen-fleet", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("group", "lose", "key"), LOSSES, indirect=["group"])
def test_what_a_replica_had_survives_its_master(
    group: Group, fleet: Harness, lose: Callable[[Member], None], key: str
) -> None:
    failover = Failover(group, fleet, victim_of(group, fleet, key), workers=1)

    outcome = failover.lose_master(lose, 1.0, 1.0)

    assert outcome.lost_replicated == [], fleet.report()
    assert outcome.declared_dead == 0, fleet.report()
    fleet.check()


@pytest.mark.slow
@pytest.mark.parametrize("group", ["sentinel"], indirect=True)
def test_what_a_promoted_replica_lacks_is_noticed_and_told(group: Group, fleet: Harness) -> None:
    sweeper, worker = fleet.resurrector(), fleet.worker()
    worker.wait_ready()
    wait_until(fleet.store.fleet.leases, 60, "a sweeper")
    master, (replica,) = group.masters()[0], [member for member in group.members if member.role() == "slave"]
    before = fleet.actors.quick.push(1).id
    fleet.wait(lambda: fleet.effects("ran", before), what="a run before")
    assert fleet.store.runner.confirmed("rl:relier:{00}:sync", 1, 5.0) == 1

    cut_off(master, replica)  # given: the master goes on alone
    alone = [fleet.actors.quick.push(1).id for _ in range(20)]
    fleet.wait(lambda: set(alone) <= set(fleet.counted("ran")), what="runs that only the master knows of")
    meta = fleet.store.keys.shard(0, "")[2]
    seen = fleet.store.runner.command("HGET", meta, "tide")
    fleet.wait(lambda: fleet.store.runner.command("HGET", meta, "tide") != seen, what="a confirmation")
    master.kill()  # when: the replica takes over

    told = "The store went back: it lacks what it had confirmed."
    fleet.wait(lambda: told in sweeper.text() + worker.text(), timeout=120, what="the rollback")
    (finding,) = rollback_check(fleet.store)(fleet.store.client, fleet.settings)
    assert finding.level == "warning"
    assert finding.message.startswith("The store went back at ")
    assert rollbacks(fleet.store.runner, fleet.store.keys)[0].since
    assert fleet.store.counters()["rollbacks"] >= 1
    assert "store went back" in {event["event"] for event in fleet.store.events()}
    after = fleet.actors.quick.push(1).id
    fleet.wait(lambda: fleet.effects("ran", after), timeout=120, what="a run after")
    assert "Worker death detected" not in sweeper.text() + worker.text()
    fleet.check()


def cut_off(master: Member, replica: Member) -> None:
    """End replication for good: the replica has no password that the master accepts."""
    replica.ask("CONFIG", "SET", "masteruser", "nobody")
    replica.ask("CONFIG", "SET", "masterauth", "wrong")
    master.ask("CLIENT", "KILL", "TYPE", "replica")
    wait_until(lambda: replica.replication()["master_link_status"] == "down", 60, "the end of replication")
    wait_until(lambda: replicas_of(master) == 0, 60, "a master alone")


def replicas_of(master: Member) -> int:
    return int(master.replication()["connected_slaves"])


@pytest.mark.slow
@pytest.mark.parametrize("group", ["cluster"], indirect=True)
def test_resurrectors_share_the_shards_of_a_cluster_and_take_over_from_a_dead_one(group: Group, fleet: Harness) -> None:
    def holders() -> dict[str, int]:
        held: dict[str, int] = {}
        for slot, lease in fleet.store.fleet.leases().items():
            if not slot.startswith("member:"):
                held[lease.split("|")[1]] = held.get(lease.split("|")[1], 0) + 1
        return held

    sweepers = [fleet.resurrector() for _ in range(3)]
    fleet.wait(lambda: len(holders()) == 3 and sum(holders().values()) == 9, what="three that share nine leases")
    fleet.workers(2)
    worker = fleet.busy_worker(4)

    victim = next(each for each in sweepers if "watch" in watched(fleet, each.identity))
    victim.kill()
    worker.kill()
    fleet.open_gate()

    fleet.wait(lambda: len(fleet.counted("ran")) == 4, timeout=120, what="every task")
    fleet.wait(lambda: len(holders()) == 2 and sum(holders().values()) == 9, timeout=120, what="two that share them")
    fleet.settle(4)


def watched(fleet: Harness, identity: str) -> set[str]:
    return {slot for slot, lease in fleet.store.fleet.leases().items() if f"|{identity}|" in lease}
