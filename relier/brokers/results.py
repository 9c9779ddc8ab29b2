"""Dramatiq's results, kept in the Redis of Relier's own broker, connected on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

if TYPE_CHECKING:
    from relier.brokers.redis import RelierRedisBroker


class LazyRedisBackend(RedisBackend):
    """Stores results through the broker's connection, whenever that is made."""

    def __init__(self, broker: RelierRedisBroker, namespace: str) -> None:
        self._broker = broker
        super().__init__(namespace=namespace, client=_Later())

    @property
    def client(self) -> redis.Redis:
        return self._broker.connection

    @client.setter
    def client(self, client: Any) -> None:
        """Ignored: the broker's is used."""


class _Later:
    def __bool__(self) -> bool:
        return True


class LazyResults(Results):
    """Results for `store_results=True`, kept for `RELIER_RESULT_TTL`; others are dropped in silence."""

    def __init__(self, broker: RelierRedisBroker) -> None:
        namespace = f"rl-results:{broker.settings.namespace}"
        super().__init__(backend=LazyRedisBackend(broker, namespace), result_ttl=int(broker.settings.result_ttl * 1000))

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        store_results, result_ttl = self._lookup_options(broker, message)
        if store_results and exception is None:
            self.backend.store_result(message, result, result_ttl)
