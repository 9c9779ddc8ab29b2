"""RabbitMQ brokers on a virtual host each, with one store for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests import sources
from tests.brokers.bench import Bench
from tests.conftest import skip
from tests.servers import RabbitmqServer, RedisServer

Benches = Callable[..., Bench]


@pytest.fixture(scope="session")
def store_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    kind = next((kind for kind in sources.STORES if sources.sources(kind)), sources.STORES[0])
    try:
        started = sources.start(kind)
    except sources.Unavailable as error:
        skip(request, error)
    yield started
    started.close()


@pytest.fixture(scope="session")
def _fragile_rabbitmq(request: pytest.FixtureRequest) -> Iterator[RabbitmqServer]:
    try:
        started = sources.start_rabbitmq(private=True)
    except sources.Unavailable as error:
        skip(request, error)
    yield started
    started.close()


@pytest.fixture
def fragile_rabbitmq(_fragile_rabbitmq: RabbitmqServer) -> RabbitmqServer:
    """A server that a test may hurt and is to leave whole; starting one for each test would take seconds."""
    _fragile_rabbitmq.wait_ready()
    return _fragile_rabbitmq


@pytest.fixture
def redis_url(store_server: RedisServer) -> str:
    """An empty store: which one makes no difference here."""
    with store_server.client() as client:
        client.flushall()
    return store_server.url


@pytest.fixture
def benches(redis_url: str, vhost: str) -> Iterator[Benches]:
    """Call with a server, a virtual host's URL and settings. All are closed before the virtual host is removed."""
    made: list[Bench] = []

    def make(server: RabbitmqServer, vhost: str, **options: Any) -> Bench:
        made.append(Bench(server, vhost, redis_url, **options))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(benches: Benches, rabbitmq: RabbitmqServer, vhost: str) -> Bench:
    return benches(rabbitmq, vhost)
