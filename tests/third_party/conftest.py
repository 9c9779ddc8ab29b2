"""Fleets on brokers that are not Relier's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dramatiq import Broker

from tests.integration.harness import Harness
from tests.servers import RedisServer
from tests.third_party.brokers import VARIABLE, make_broker


class ForeignFleet(Harness):
    """A fleet whose broker an application brought along.

    Parameters:
      kind: of `tests.third_party.brokers.KINDS`.
      where: URL or path of the broker.
      server, folder, options: see `Harness`.
    """

    def __init__(self, kind: str, where: str, server: RedisServer, folder: Path, **options: Any) -> None:
        self.kind, self.where = kind, where
        super().__init__(server, folder, **options)
        self.environ = {VARIABLE: f"{kind} {where}"}
        self.actor_module = "tests.third_party.worker_actors"

    def make_broker(self) -> Broker:
        return make_broker(self.kind, self.where, self.settings)

    def held(self, queue: str) -> int:
        broker: Any = self.broker
        if self.kind == "sqlite":
            return int(broker.count(queue))
        if self.kind == "plain-redis":
            return int(broker.do_qsize(queue))
        broker.declare_queue(queue, ensure=True)
        return sum(broker.get_queue_message_counts(queue)[:2])


ForeignFleets = Callable[..., ForeignFleet]


@pytest.fixture
def foreign_fleets(
    request: pytest.FixtureRequest, tmp_path: Path, server: RedisServer, store_url: str
) -> Iterator[ForeignFleets]:
    """Call with the kind of broker and settings; everything that was started ends with the test."""
    made: list[ForeignFleet] = []

    def make(kind: str, **options: Any) -> ForeignFleet:
        if kind == "plain-rabbitmq":
            where = request.getfixturevalue("vhost")
        else:
            where = store_url if kind == "plain-redis" else str(tmp_path / "messages.sqlite")
        made.append(ForeignFleet(kind, where, server, tmp_path, **options))
        return made[-1]

    yield make
    for fleet in made:
        fleet.close()


@pytest.fixture
def foreign_fleet(foreign_fleets: ForeignFleets, kind: str) -> ForeignFleet:
    """A fleet with the default settings on the `kind` of broker that the test is parametrised with."""
    return foreign_fleets(kind)
