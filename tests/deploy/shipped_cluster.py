"""A Redis Cluster of three masters, each started by `redis/start.sh` with the very files beside it."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis

from tests.deploy.shipped import FILES, ShippedRedis
from tests.servers.service import free_port
from tests.waiting import wait_until

#: How many slots there are, and how many each of three masters gets at most.
SLOTS, EACH = 16384, 5462


class ShippedCluster(ShippedRedis):
    """Three masters with the shipped users; itself the one that has the fleet's shard. Raises `Unavailable`."""

    def __init__(self, files: Path = FILES) -> None:
        self.nodes: list[ShippedRedis] = []
        try:
            self._form(files)
        except BaseException:
            self.close()
            raise
        self.description = "redis/start.sh, three times"
        self.url = self.url_of("admin")

    def _form(self, files: Path) -> None:
        buses = [free_port() for _ in range(3)]
        for number, bus in enumerate(buses):
            node = ShippedRedis("--cluster-enabled", "yes", "--cluster-port", str(bus), files=files)
            self.nodes.append(node)
            last = min((number + 1) * EACH, SLOTS) - 1
            with node.client() as client:
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
                client.execute_command("CLUSTER ADDSLOTSRANGE", number * EACH, last)
                for other, its_bus in zip(self.nodes[:-1], buses, strict=False):
                    client.execute_command("CLUSTER MEET", "127.0.0.1", other.port, its_bus)
        wait_until(self._agrees, 60, "the cluster")

    def _agrees(self) -> bool:
        """Whether every server says that all slots are served, and by all three."""
        with suppress(redis.RedisError):
            told = [self._cluster_info(node) for node in self.nodes]
            return all("cluster_state:ok" in text and "cluster_size:3" in text for text in told)
        return False

    def _cluster_info(self, node: ShippedRedis) -> str:
        with node.client_of("admin", decode_responses=True) as client:
            found = client.execute_command("CLUSTER INFO")
        return "\n".join(f"{k}:{v}" for k, v in found.items()) if isinstance(found, dict) else str(found)

    @property
    def settings(self) -> dict[str, Any]:
        return {**super().settings, "redis_use_cluster": True}

    def url_of(self, user: str) -> str:
        first, *others = (node.url_of(user) for node in self.nodes)
        places = [re.sub(r".*@|/0$", "", url) for url in others]
        return ",".join([first.removesuffix("/0"), *places])

    def client(self, **options: Any) -> redis.Redis:
        """Return a client of the master that has the fleet's shard, {00}."""
        return self._home.client(**options)

    @property
    def _home(self) -> ShippedRedis:
        from relier.store.topology import slot_of

        return self.nodes[slot_of("{00}") // EACH]

    def empty(self) -> None:
        for node in self.nodes:
            node.empty()

    def refused(self) -> list[str]:
        return [line for node in self.nodes for line in node.refused()]

    def close(self) -> None:
        for node in self.nodes:
            node.close()
