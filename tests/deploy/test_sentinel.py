"""Three Sentinels, a master and a replica, all started with the files of redis/: the master is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pytest
import redis

from tests import sources
from tests.conftest import skip
from tests.deploy.shipped import ShippedRedis, ShippedSentinel
from tests.waiting import wait_until


@dataclass
class Group:
    """What is promoted, and who decides that."""

    master: ShippedRedis
    replica: ShippedRedis
    sentinels: list[ShippedSentinel]

    def knows(self) -> list[tuple[str, str]]:
        """Return of each Sentinel how many replicas and other Sentinels it knows."""
        seen = [sentinel.sees() for sentinel in self.sentinels]
        return [(told["num-slaves"], told["num-other-sentinels"]) for told in seen]


def role(server: ShippedRedis) -> str:
    try:
        with server.client() as client:
            return str(client.info("replication")["role"])
    except redis.RedisError:
        return "away"


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    with ExitStack() as stack:
        try:
            master = stack.enter_context(closing(ShippedRedis()))
        except sources.Unavailable as error:
            skip(request, error)
        replica = stack.enter_context(closing(ShippedRedis("--replicaof", "127.0.0.1", str(master.port))))
        made = [stack.enter_context(closing(ShippedSentinel(master))) for _ in range(3)]
        found = Group(master, replica, made)
        wait_until(lambda: found.knows() == [("1", "2")] * 3, 90, "three Sentinels that know all")
        yield found


@pytest.mark.slow
def test_a_killed_master_is_replaced_and_comes_back_as_a_replica(group: Group) -> None:
    with group.master.client() as client:
        client.set("rl:relier:{00}:probe", "kept")
        assert client.wait(1, 30_000) == 1
    group.master.kill()
    wait_until(lambda: role(group.replica) == "master", 90, "the replica's promotion")
    with group.replica.client() as client:
        assert client.get("rl:relier:{00}:probe") == b"kept"
    group.master.restart()
    wait_until(lambda: role(group.master) == "slave", 90, "the old master as a replica")
    group.master.kill()
    group.master.restart()
    assert role(group.master) == "slave"  # Its file says so: it never takes writes in between.
    group.replica.kill()
    group.replica.restart()
    assert role(group.replica) == "master"
