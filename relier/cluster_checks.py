"""Look at a Redis Cluster: every master by itself, and whether one that dies would be replaced."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis

from relier.preflight import Finding
from relier.settings import Settings
from relier.store.topology import SlotPool, Topology, client_at

#: Fewer masters cannot agree on a failover when one of them is the one that died.
FEWEST = 3


def masters_of(client: redis.Redis) -> list[tuple[str, redis.Redis]]:
    """Return a client for each master of the cluster that a client leads to, by its place; none when it is no cluster.

    Raises `ClusterDownError` when no server of it answers.
    """
    pool = client.connection_pool
    if not isinstance(pool, SlotPool):
        return []
    return [(f"{address[0]}:{address[1]}", client_at(pool.topology, address)) for address in pool.topology.masters()]


def check_cluster(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    """Tell what is wrong with a cluster, or that an undeclared one was found."""
    pool = client.connection_pool
    if isinstance(pool, SlotPool):
        yield from _cluster(client, pool.topology)
    elif client.info("cluster").get("cluster_enabled"):
        message = "Redis is a server of a Redis Cluster, which has a part of the keys only."
        yield Finding("error", "cluster", message, "Set RELIER_REDIS_USE_CLUSTER=true.")


def _cluster(client: redis.Redis, topology: Topology) -> Iterator[Finding]:
    told: dict[str, Any] = client.execute_command("CLUSTER INFO")
    masters = masters_of(client)
    alone = [place for place, master in masters if not master.info("replication").get("connected_slaves")]
    if told.get("cluster_state") != "ok":
        message = f"The cluster does not serve every slot ({told.get('cluster_slots_ok')} of 16384 are served)."
        yield Finding("error", "cluster", message, "redis-cli --cluster check; bring the missing master back.")
    elif len(masters) < FEWEST:
        message = f"The cluster has {len(masters)} masters; the others cannot agree on a failover."
        yield Finding("warning", "cluster", message, f"Run {FEWEST} masters at least.")
    elif alone:
        message = f"Nobody would replace {', '.join(alone)}: no replica is connected."
        yield Finding("warning", "cluster", message, "Give each master a replica on another host.")
    else:
        yield Finding("ok", "cluster", f"{len(masters)} masters, each with a replica, serve every slot.")
