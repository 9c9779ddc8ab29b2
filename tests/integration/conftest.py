"""Fleets on the session's servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import Harness
from tests.servers import RedisServer

Fleets = Callable[..., Harness]


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[Fleets]:
    """Call with a server and settings; everything that was started ends with the test."""
    made: list[Harness] = []

    def make(server: RedisServer, **options: Any) -> Harness:
        folder = tmp_path / f"fleet-{len(made)}"
        folder.mkdir()
        made.append(Harness(server, folder, **options))
        return made[-1]

    yield make
    for harness in made:
        harness.close()


@pytest.fixture
def fleet(fleets: Fleets, server: RedisServer, store_url: str) -> Harness:
    """A fleet with the default settings on the shared server of each kind."""
    return fleets(server)


def emptied(server: RedisServer) -> RedisServer:
    """Return the server without any data."""
    with server.client() as client:
        client.flushall()
    return server
