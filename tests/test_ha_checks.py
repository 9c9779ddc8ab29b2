"""What is wrong with Sentinels and clusters is said in one line before work begins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
import redis

from relier.preflight import Finding, inspect_redis
from relier.settings import Settings
from relier.store.client import connect
from relier.store.cluster import runner_for
from tests.servers.groups import ClusterGroup, SentinelGroup


def errors(**settings: Any) -> list[Finding]:
    """Return what would refuse the start."""
    known = Settings(redis_connect_timeout=2, **settings)
    return [finding for finding in inspect_redis(connect(known), known) if finding.level == "error"]


def test_a_store_behind_sentinels_is_well(sentinels: SentinelGroup) -> None:
    assert errors(**sentinels.settings) == []


def test_sentinels_that_do_not_answer_are_named() -> None:
    (finding,) = errors(redis_use_sentinel=True, redis_sentinel_nodes=(("127.0.0.1", 1), ("127.0.0.1", 2)))

    begin = "Relier cannot reach Redis (sentinel://127.0.0.1:1,127.0.0.1:2/relier-master). Refusing to start. "
    assert finding.message.startswith(begin + "The Sentinel 127.0.0.1:1 does not answer")


def test_a_master_that_the_sentinels_do_not_know_is_named(sentinels: SentinelGroup) -> None:
    (finding,) = errors(**sentinels.settings, redis_sentinel_master_name="relier-mastre")

    assert "knows no master 'relier-mastre'; did you mean 'relier-master'?" in finding.message


def test_a_replica_is_not_taken_for_the_master(sentinels: SentinelGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = next(member for member in sentinels.members if member.role() == "slave")
    client = connect(Settings(**sentinels.settings))
    manager = cast("Any", client.connection_pool).sentinel_manager
    monkeypatch.setattr(manager, "discover_master", lambda name: ("127.0.0.1", replica.port))

    with pytest.raises(redis.ConnectionError, match="A replica answered"):
        runner_for(client).command("PING")


def test_a_url_beside_sentinels_tells_database_and_user_alone(sentinels: SentinelGroup) -> None:
    known = Settings(**{**sentinels.settings, "redis_url": "redis://nobody.invalid:1/3"})
    runner = runner_for(connect(known))

    runner.command("SET", "k", "in 3")

    with redis.Redis(port=sentinels.masters()[0].port, db=3) as third:
        assert third.getdel("k") == b"in 3"


def test_every_master_of_a_cluster_is_looked_at(cluster: ClusterGroup) -> None:
    assert errors(**cluster.settings) == []
    last = cluster.masters()[-1]
    last.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        (finding,) = errors(**cluster.settings)
    finally:
        last.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")

    wanted = "Relier requires Redis maxmemory-policy='noeviction', but got 'allkeys-lru'."
    assert finding.message in (wanted, f"{wanted} This is about 127.0.0.1:{last.port}.")


def test_a_cluster_that_nobody_declared_is_refused(cluster: ClusterGroup) -> None:
    (finding, *_) = errors(redis_url=cluster.masters()[0].url)

    assert finding.message == "Redis is a server of a Redis Cluster, which has a part of the keys only."
    assert finding.fix == "Set RELIER_REDIS_USE_CLUSTER=true."


def test_a_key_that_another_server_of_a_cluster_has_is_no_missing_right(cluster: ClusterGroup) -> None:
    def reads_a_key(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
        client.get("somewhere")
        yield from ()

    for master in cluster.masters():  # All but one of them have the key elsewhere.
        known = Settings(redis_url=master.url)
        found = inspect_redis(connect(known), known, [reads_a_key])
        assert "permissions" not in {finding.name for finding in found}


def test_a_redis_that_is_no_cluster_is_refused(sentinels: SentinelGroup) -> None:
    (finding,) = errors(redis_url=sentinels.masters()[0].url, redis_use_cluster=True)

    assert finding.message.startswith("Relier cannot reach Redis (redis://127.0.0.1:")
    assert "cluster support disabled" in finding.message
