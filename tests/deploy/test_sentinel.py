"""Three Sentinels, a master and a replica, all started with the files of redis/: the master is killed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from tests import processes, sources
from tests.conftest import skip
from tests.deploy.shipped import ROOT, ShippedRedis, ShippedSentinel, password
from tests.deploy.test_compose import filled, services
from tests.processes import Started
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


@pytest.mark.slow
def test_workers_and_producers_of_the_production_file_follow_the_master(group: Group, tmp_path: Path) -> None:
    """With the settings of compose.yaml: the user in the URL, its password apart, the server by Sentinel."""
    told = services("compose.yaml")["worker"]["environment"]
    nodes = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in group.sentinels)
    given = {key: filled(value) for key, value in told.items()} | {"RELIER_REDIS_SENTINEL_NODES": nodes}
    settings = {key.removeprefix("RELIER_").lower(): value for key, value in given.items()}
    settings |= {"actors": "quickstart", "recovery_queue": "own", "redis_password": password("worker")}
    producer = settings | {
        "redis_url": settings["redis_url"].replace("worker@", "producer@"),
        "redis_password": password("producer"),
    }
    shutil.copy(ROOT / "examples" / "quickstart.py", tmp_path)

    def pushes() -> bool:
        done = processes.run(tmp_path, "quickstart", **producer)
        return "Hello, Ann!" in done.stdout and "divide is dead" in done.stdout

    command = services("compose.yaml")["worker"]["command"][1:-1]
    with Started(tmp_path, "relier_cli.app", *command, "2", **settings) as worker:
        assert pushes(), worker.output[-3000:]
        group.master.kill()
        wait_until(lambda: role(group.replica) == "master", 90, "the replica's promotion")
        wait_until(pushes, 90, f"a task after the failover: {worker.output[-3000:]}")
        assert worker.terminate() == 0
    assert group.replica.refused() == []
