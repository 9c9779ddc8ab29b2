"""Dramatiq's results, kept in the Redis of Relier's own broker, connected on first use."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import redis
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

if TYPE_CHECKING:
    from relier.brokers.redis import RelierRedisBroker


class LazyRedisBackend(RedisBackend):  # type: ignore[misc]
    """Stores results through the broker's connection, whenever that is made."""

    def __init__(self, broker: RelierRedisBroker, namespace: str) -> None:
        self._broker = broker
        super().__init__(namespace=namespace, client=broker)

    @property
    def client(self) -> redis.Redis:
        return self._broker.connection

    @client.setter
    def client(self, client: Any) -> None:
        """Ignored: the broker's is used."""


def quiet_results(broker: RelierRedisBroker) -> Results:
    """Return Results for `store_results=True`, kept for `RELIER_RESULT_TTL`.

    An actor that returns a value nobody stores is ordinary; Dramatiq warns of each one.
    """
    backend = LazyRedisBackend(broker, f"rl-results:{broker.settings.namespace}")
    ttl = int(broker.settings.result_ttl * 1000)
    results = Results(backend=backend, result_ttl=ttl)  # type: ignore[no-untyped-call]
    results.logger = logging.getLogger("relier.results")
    results.logger.setLevel(logging.ERROR)
    return results
