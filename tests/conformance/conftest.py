"""A fleet on each topology.

`topology`  where the test runs; see `tests.conformance.topologies.where`
`ground`    its store and broker, empty
`fleets`    a factory of fleets on it: `fleets(heartbeat_ttl=2)`
`fleet`     one with the default settings
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import sources
from tests.conformance.topologies import TOPOLOGIES, USUAL, Ground, Topology
from tests.conftest import SharedServers, skip
from tests.integration.harness import Harness

Fleets = Callable[..., Harness]


@pytest.fixture(params=USUAL)
def topology(request: pytest.FixtureRequest) -> Topology:
    return TOPOLOGIES[request.param]


@pytest.fixture
def ground(
    request: pytest.FixtureRequest, topology: Topology, servers: SharedServers, tmp_path: Path
) -> Iterator[Ground]:
    try:
        ground = topology.prepare(servers, tmp_path)
    except sources.Unavailable as error:
        skip(request, error)
    yield ground
    ground.close()


@pytest.fixture
def fleets(tmp_path: Path, ground: Ground) -> Iterator[Fleets]:
    """Call with settings; everything that was started ends with the test."""
    made: list[Harness] = []

    def make(**options: Any) -> Harness:
        folder = tmp_path / f"fleet-{len(made)}"
        folder.mkdir()
        made.append(ground.fleet(ground.store, folder, **options))
        return made[-1]

    yield make
    for harness in made:
        harness.close()


@pytest.fixture
def fleet(fleets: Fleets) -> Harness:
    return fleets()
