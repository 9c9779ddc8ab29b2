"""Dramatiq's results, kept in the broker's Redis, else in the store's, connected on first use."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import redis
from dramatiq.results import Results, ResultTimeout
from dramatiq.results.backend import DEFAULT_TIMEOUT
from dramatiq.results.backends import RedisBackend

from relier.store.connection import UNAVAILABLE

if TYPE_CHECKING:
    from relier.brokers.own import OwnBroker

#: Longest wait (s) of one blocking call: below every sensible socket timeout.
LONGEST_WAIT = 1.0


class LazyRedisBackend(RedisBackend):  # type: ignore[misc]
    """Stores results through a connection that is made on first use."""

    def __init__(self, broker: OwnBroker, namespace: str) -> None:
        self._broker = broker
        super().__init__(namespace=namespace, client=broker)

    @property
    def client(self) -> redis.Redis:
        return self._broker.results_client

    @client.setter
    def client(self, client: Any) -> None:
        """Ignored: the broker's is used."""

    def get_result(self, message: Any, *, block: bool = False, timeout: int | None = None) -> Any:
        """Return a result; with `block` wait up to `timeout` milliseconds, in steps shorter than a socket's timeout."""
        if not block:
            return super().get_result(message)
        key, end = self.build_message_key(message), time.monotonic() + (timeout or DEFAULT_TIMEOUT) / 1000
        while (left := end - time.monotonic()) > 0:
            data = self.client.brpoplpush(key, key, timeout=max(0.05, min(left, LONGEST_WAIT)))
            if data is not None:
                return self.unwrap_result(self.encoder.decode(data))
        raise ResultTimeout(message)  # type: ignore[no-untyped-call]

    def _store(self, message_key: str, result: Any, ttl: int) -> None:
        """Store a result, however long Redis is away: a hook that fails is not repeated."""
        pause = 0.01
        while True:
            try:
                super()._store(message_key, result, ttl)
                return
            except UNAVAILABLE:
                time.sleep(pause)
                pause = min(pause * 2, 0.5)


def quiet_results(broker: OwnBroker) -> Results:
    """Return Results for `store_results=True`, kept for `RELIER_RESULT_TTL`.

    An actor that returns a value nobody stores is ordinary; Dramatiq warns of each one.
    """
    backend = LazyRedisBackend(broker, f"rl-results:{broker.settings.namespace}")
    ttl = int(broker.settings.result_ttl * 1000)
    results = Results(backend=backend, result_ttl=ttl)  # type: ignore[no-untyped-call]
    results.logger = logging.getLogger("relier.results")
    results.logger.setLevel(logging.ERROR)
    return results
