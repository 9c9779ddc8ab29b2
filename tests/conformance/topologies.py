"""The brokers and stores that must keep every promise, each as one entry: a new broker is one more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest
from dramatiq.common import dq_name

from tests import sources
from tests.integration.harness import Harness
from tests.servers import RabbitmqServer, RedisServer, Server
from tests.servers.groups import Group
from tests.third_party.fleet import ForeignFleet


class Servers(Protocol):
    """Servers that the session shares, or of one test alone."""

    def store(self, kind: str) -> RedisServer: ...

    def rabbitmq(self) -> RabbitmqServer: ...


class OwnServers:
    """Servers that nobody else uses, to be hurt. Close it to end them. Raises `sources.Unavailable`."""

    def __init__(self) -> None:
        self._started: list[Server] = []

    def store(self, kind: str) -> RedisServer:
        self._started.append(started := sources.start(kind, private=True))
        return started

    def rabbitmq(self) -> RabbitmqServer:
        self._started.append(started := sources.start_rabbitmq(private=True))
        return started

    def close(self) -> None:
        for server in self._started:
            server.close()


@dataclass(frozen=True)
class Ground:
    """What a test stands on: an empty store, an empty broker."""

    store: RedisServer
    #: May be the same server.
    broker: Server
    #: Makes a fleet: `fleet(store, folder, **settings)`.
    fleet: Callable[..., Harness] = Harness
    #: Cuts every connection to the broker; returns how many there were.
    cut: Callable[[], int] = lambda: 0
    #: Gives back what was taken from the shared servers.
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Topology:
    """One way to run Relier.

    Parameters:
      prepare: gives the ground for one test.
      lacks: promises that are not made here, by their names in `PROMISES`.
    """

    prepare: Callable[[Servers, Path], Ground]
    lacks: frozenset[str] = frozenset()


#: Promises that a weaker broker may lack; a test says which of them it is about.
PROMISES = {
    "prefetched": "what a dead process had only prefetched runs at once on another",
    "cuts": "what was on its way when a connection to the broker was cut comes again at once",
    "batches": "a producer that is killed has sent all messages of a `push_many`, or none",
    "freezes": "a process that is frozen holds no lock of the broker",
}


def _one_redis(kind: str) -> Callable[[Servers, Path], Ground]:
    def prepare(servers: Servers, folder: Path) -> Ground:
        store = _emptied(servers.store(kind))
        return Ground(store, store, cut=partial(_cut, store))

    return prepare


def _two_redises(servers: Servers, folder: Path) -> Ground:
    store, broker = _emptied(servers.store("redis")), _emptied(servers.store("embedded"))
    return Ground(store, broker, partial(Harness, broker_url=broker.url), cut=partial(_cut, broker))


def _emptied(server: RedisServer) -> RedisServer:
    server.empty()
    return server


def _cut(server: RedisServer) -> int:
    masters = server.masters() if isinstance(server, Group) else [server]
    cut = 0
    for master in masters:
        with master.client() as client:
            cut += int(client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
    return cut


class RabbitmqFleet(Harness):
    """A fleet on RabbitMQ, which alone knows how many messages are not acknowledged."""

    def __init__(self, server: RedisServer, folder: Path, *, rabbitmq: RabbitmqServer, **options: Any) -> None:
        self.rabbitmq = rabbitmq
        super().__init__(server, folder, **options)

    def held(self, queue: str) -> int:
        queues = self.rabbitmq.queues(self.options["broker_url"])
        lanes = (self.broker.on_server(name) for name in (queue, dq_name(queue)))
        return sum(queues[lane].ready + queues[lane].unacked for lane in lanes if lane in queues)


def _rabbitmq(**settings: Any) -> Callable[[Servers, Path], Ground]:
    def prepare(servers: Servers, folder: Path) -> Ground:
        server, store = servers.rabbitmq(), _emptied(servers.store("embedded"))
        url = server.new_vhost()
        return Ground(
            store,
            server,
            partial(RabbitmqFleet, rabbitmq=server, broker_url=url, **settings),
            cut=lambda: server.close_connections(url, abruptly=True),
            close=lambda: server.drop_vhost(url),
        )

    return prepare


def _plain_redis(servers: Servers, folder: Path) -> Ground:
    store = _emptied(servers.store("redis"))
    fleet = partial(ForeignFleet, kind="plain-redis", where=store.url)
    return Ground(store, store, fleet, cut=partial(_cut, store))


def _plain_rabbitmq(servers: Servers, folder: Path) -> Ground:
    server, store = servers.rabbitmq(), _emptied(servers.store("embedded"))
    url = server.new_vhost()
    return Ground(
        store,
        server,
        partial(ForeignFleet, kind="plain-rabbitmq", where=url, rabbitmq=server),
        cut=lambda: server.close_connections(url, abruptly=True),
        close=lambda: server.drop_vhost(url),
    )


def _sqlite(servers: Servers, folder: Path) -> Ground:
    store = _emptied(servers.store("embedded"))
    fleet = partial(ForeignFleet, kind="sqlite", where=str(folder / "messages.sqlite"))
    return Ground(store, store, fleet)  # A file has no server.


TOPOLOGIES = {
    "embedded": Topology(_one_redis("embedded")),
    "redis": Topology(_one_redis("redis")),
    "two-redises": Topology(_two_redises),
    "sentinel": Topology(_one_redis("sentinel")),
    "cluster": Topology(_one_redis("cluster")),
    "rabbitmq": Topology(_rabbitmq()),
    "quorum": Topology(_rabbitmq(rabbitmq_queue_type="quorum")),
    "plain-redis": Topology(_plain_redis, lacks=frozenset({"prefetched", "cuts", "batches"})),
    "plain-rabbitmq": Topology(_plain_rabbitmq, lacks=frozenset({"batches"})),
    "sqlite": Topology(_sqlite, lacks=frozenset({"prefetched", "freezes", "batches"})),
}

#: Where a promise is tested in every run, unless the test says otherwise; the rest is marked `slow`.
USUAL = ("embedded", "rabbitmq")
EVERYWHERE = tuple(TOPOLOGIES)
#: Brokers that are not Relier's.
FOREIGN = ("plain-redis", "plain-rabbitmq", "sqlite")


def where(usual: Iterable[str] = USUAL, needs: str = "", never: Iterable[str] = ()) -> pytest.MarkDecorator:
    """Say where a test runs: on the `usual` topologies in every run, on the others as a slow test.

    Parameters:
      needs: names, separated by spaces, of promises that a topology must make.
      never: topologies on which the test makes no sense.
    """
    return pytest.mark.parametrize("topology", _params(usual, needs, never), indirect=True)


def cases(usually: Mapping[str, Iterable[str]], needs: str = "", never: Iterable[str] = ()) -> list[Any]:
    """Return pairs of a value and a topology, as parameters; `usually` says where each value runs in every run."""
    return [
        pytest.param(value, param.values[0], marks=param.marks)
        for value, usual in usually.items()
        for param in _params(usual, needs, never)
    ]


def _params(usual: Iterable[str], needs: str = "", never: Iterable[str] = ()) -> list[Any]:
    unknown = {*usual, *never} - set(TOPOLOGIES) | set(needs.split()) - set(PROMISES)
    assert not unknown, f"no such topology or promise: {unknown}"
    fit = [name for name, each in TOPOLOGIES.items() if name not in never and not each.lacks & set(needs.split())]
    return [pytest.param(name, marks=() if name in usual else pytest.mark.slow) for name in fit]
