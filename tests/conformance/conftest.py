"""A fleet on each topology.

`topology`        where the test runs; see `tests.conformance.topologies.where`
`ground`          its store and broker, empty
`private_ground`  the same on servers that the test may hurt; `ground` is it then
`fleets`          a factory of fleets on it: `fleets(heartbeat_ttl=2)`
`fleet`           one with the default settings
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests import sources
from tests.conformance.topologies import TOPOLOGIES, USUAL, Ground, OwnServers, Servers, Topology
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
    if "private_ground" in request.fixturenames:
        yield request.getfixturevalue("private_ground")
        return
    ground = _prepared(request, topology, servers, tmp_path)
    yield ground
    ground.close()


@pytest.fixture
def private_ground(request: pytest.FixtureRequest, topology: Topology, tmp_path: Path) -> Iterator[Ground]:
    with closing(OwnServers()) as servers:
        yield _prepared(request, topology, servers, tmp_path)


def _prepared(request: pytest.FixtureRequest, topology: Topology, servers: Servers, folder: Path) -> Ground:
    try:
        return topology.prepare(servers, folder)
    except sources.Unavailable as error:
        skip(request, error)


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
