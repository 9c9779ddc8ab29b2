"""Servers started with the files that are shipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import sources
from tests.conftest import skip
from tests.deploy.shipped import ShippedRedis
from tests.integration.harness import Harness

Fleets = Callable[..., Harness]


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


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[Fleets]:
    """Call with a server and settings; everything that was started ends with the test."""
    made: list[Harness] = []

    def make(server: ShippedRedis, **options: Any) -> Harness:
        folder = tmp_path / f"fleet-{len(made)}"
        folder.mkdir()
        made.append(Harness(server, folder, **options))
        return made[-1]

    yield make
    for harness in made:
        harness.close()
