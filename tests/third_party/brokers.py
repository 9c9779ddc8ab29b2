"""Brokers that are not Relier's, as an application makes them: a broker, its middleware, and `relier.install`."""

from __future__ import annotations

import os
from typing import Any

from dramatiq import Broker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

import relier
from relier.settings import Settings

#: Tells a worker process which broker to make: its kind and where it is.
VARIABLE = "RL_TEST_BROKER"

#: Every kind: Dramatiq's own two, and one that only knows Dramatiq's base classes.
KINDS = ("plain-redis", "plain-rabbitmq", "sqlite")


def make_broker(kind: str, where: str, settings: Settings) -> Broker:
    """Return a broker with Relier on it. Results are kept in the store's Redis."""
    broker = _MAKERS[kind](where)
    broker.add_middleware(Results(backend=RedisBackend(url=settings.redis_url)))  # type: ignore[no-untyped-call]
    return relier.install(broker, settings)


def broker_of_environment() -> Broker:
    """Return the broker that the environment names."""
    kind, _, where = os.environ[VARIABLE].partition(" ")
    return make_broker(kind, where, relier.get_settings())


def _redis(where: str) -> Any:
    from dramatiq.brokers.redis import RedisBroker

    # What a dead worker had only fetched comes back within seconds instead of minutes.
    return RedisBroker(url=where, heartbeat_timeout=3000, maintenance_chance=1_000_000)  # type: ignore[no-untyped-call]


def _rabbitmq(where: str) -> Any:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    # What a frozen worker had fetched comes back within seconds instead of minutes.
    return RabbitmqBroker(url=f"{where}?heartbeat=4", confirm_delivery=True)


def _sqlite(where: str) -> Any:
    from tests.third_party.sqlite_broker import SqliteBroker

    return SqliteBroker(where)


_MAKERS = {"plain-redis": _redis, "plain-rabbitmq": _rabbitmq, "sqlite": _sqlite}
