"""Servers started with the files that are shipped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests import sources
from tests.conftest import skip
from tests.deploy.shipped import ShippedRedis
from tests.integration.conftest import fleets  # noqa: F401 - a fixture


@pytest.fixture(scope="package")
def shipped_redis(request: pytest.FixtureRequest) -> Iterator[ShippedRedis | sources.Unavailable]:
    try:
        server = ShippedRedis()
    except sources.Unavailable as error:
        yield error
        return
    with closing(server):
        yield server


@pytest.fixture
def shipped(
    request: pytest.FixtureRequest, shipped_redis: ShippedRedis | sources.Unavailable
) -> Iterator[ShippedRedis]:
    """The Redis that is shipped, empty; nobody may have been refused anything by mistake."""
    if isinstance(shipped_redis, sources.Unavailable):
        skip(request, shipped_redis)
    shipped_redis.empty()
    shipped_redis.refused()
    yield shipped_redis
