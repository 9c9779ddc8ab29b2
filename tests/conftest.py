"""Fixtures that give tests real servers, and the account of what could not run.

`servers`           the session's shared servers, started when they are first asked for
`server`            the shared store, once per kind (embedded, redis); never hurt it
`store_url`         its URL, emptied before the test
`client`            a client of it
`settings`          settings that point to it
`store`             Relier's store on it
`private_server`    a factory of stores that the test may kill, stop and restart
`rabbitmq`          the session's shared RabbitMQ; never hurt it, but cut its connections as you like
`vhost`             the URL of a virtual host in it, of this test alone
`private_rabbitmq`  a factory of RabbitMQ servers that the test may hurt; each takes seconds to start
`prometheus`        a Prometheus of the test's own, not started, and its promtool
`faketime`          the library that moves the clock of a process that preloads it
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

import dramatiq.broker
import pytest
import redis

from relier.settings import Settings, reset_settings
from relier.store import Store
from tests import sources, spawn
from tests.account import Account
from tests.servers import RabbitmqServer, RedisServer, Server
from tests.servers.groups import ClusterGroup, SentinelGroup
from tests.servers.prometheus import Prometheus

_account = pytest.StashKey[Account]()

PrivateServers = Callable[..., RedisServer]
PrivateRabbitmqs = Callable[..., RabbitmqServer]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_account] = Account.open()
    spawn.enabled = True
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # What runs in the background ignores it, and its children.
    for name in [name for name in os.environ if name.startswith("RELIER_") and not name.startswith("RELIER_TEST_")]:
        del os.environ[name]  # the user's own settings must not reach tests, nor the processes they start


def pytest_report_header(config: pytest.Config) -> list[str]:
    lines = []
    for kind in sources.KINDS:
        found = sources.sources(kind)
        lines.append(f"{kind}: {found[0].description if found else 'MISSING, ' + sources.MISSING[kind]}")
    return lines


def skip(request: pytest.FixtureRequest, error: sources.Unavailable) -> NoReturn:
    """Skip a test for want of a server, and see to it that this is told at the end."""
    request.config.stash[_account].skip(request.node.nodeid, error)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    account = session.config.stash[_account]
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["account"] = account.told()
    elif exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and account.failures():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the account of a worker of pytest-xdist; one that crashed has told nothing."""
    if told := getattr(node, "workeroutput", {}).get("account"):
        node.config.stash[_account].absorb(told)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    config.stash[_account].report(terminalreporter)


class SharedServers:
    """The servers that all tests of the session share, each started when a test first asks for it.

    Raises `sources.Unavailable`.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._used = config.stash[_account].used
        self._started: dict[str, Server | sources.Unavailable] = {}

    def store(self, kind: str) -> RedisServer:
        return cast("RedisServer", self._shared(kind, partial(sources.start, kind)))

    def rabbitmq(self) -> RabbitmqServer:
        return cast("RabbitmqServer", self._shared("rabbitmq", sources.start_rabbitmq))

    def _shared(self, kind: str, start: Callable[[], Server]) -> Server:
        if kind not in self._started:
            try:
                self._started[kind] = started = start()
                self._used[kind] = started.description
            except sources.Unavailable as error:
                self._started[kind] = error
        found = self._started[kind]
        if isinstance(found, sources.Unavailable):
            raise found
        return found

    def close(self) -> None:
        for server in self._started.values():
            if isinstance(server, Server):
                server.close()


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[SharedServers]:
    shared = SharedServers(request.config)
    yield shared
    shared.close()


@pytest.fixture
def sentinels(request: pytest.FixtureRequest, servers: SharedServers) -> SentinelGroup:
    """A master, a replica and three Sentinels."""
    return cast("SentinelGroup", _group(request, servers, "sentinel"))


@pytest.fixture
def cluster(request: pytest.FixtureRequest, servers: SharedServers) -> ClusterGroup:
    """Three masters."""
    return cast("ClusterGroup", _group(request, servers, "cluster"))


def _group(request: pytest.FixtureRequest, servers: SharedServers, kind: str) -> RedisServer:
    try:
        group = servers.store(kind)
    except sources.Unavailable as error:
        skip(request, error)
    group.empty()
    return group


@pytest.fixture(params=sources.STORES)
def server(request: pytest.FixtureRequest, servers: SharedServers) -> RedisServer:
    try:
        return servers.store(request.param)
    except sources.Unavailable as error:
        skip(request, error)


@pytest.fixture
def store_url(server: RedisServer) -> str:
    with server.client() as client:
        client.flushall()
    return server.url


@pytest.fixture
def client(server: RedisServer, store_url: str) -> Iterator[redis.Redis]:
    with server.client() as client:
        yield client


@pytest.fixture
def settings(store_url: str) -> Settings:
    return Settings(redis_url=store_url)


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    store = Store.from_settings(settings)
    yield store
    store.close()


@pytest.fixture
def private_server(request: pytest.FixtureRequest) -> Iterator[PrivateServers]:
    """Call with a kind and configuration: `private_server("redis", **{"maxmemory": "10mb"})`."""
    started: list[RedisServer] = []

    def start(kind: str = "embedded", **config: str) -> RedisServer:
        options = {name.replace("_", "-"): value for name, value in config.items()}
        try:
            started.append(sources.start(kind, options, private=True))
        except sources.Unavailable as error:
            skip(request, error)
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def rabbitmq(request: pytest.FixtureRequest, servers: SharedServers) -> RabbitmqServer:
    try:
        return servers.rabbitmq()
    except sources.Unavailable as error:
        skip(request, error)


@pytest.fixture
def vhost(rabbitmq: RabbitmqServer) -> Iterator[str]:
    url = rabbitmq.new_vhost()
    yield url
    rabbitmq.drop_vhost(url)


@pytest.fixture
def private_rabbitmq(request: pytest.FixtureRequest) -> Iterator[PrivateRabbitmqs]:
    """Call with lines of `rabbitmq.conf`: `private_rabbitmq(consumer_timeout="5000")`."""
    started: list[RabbitmqServer] = []

    def start(**config: str) -> RabbitmqServer:
        try:
            started.append(sources.start_rabbitmq(config, private=True))
        except sources.Unavailable as error:
            skip(request, error)
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def faketime(request: pytest.FixtureRequest) -> Path:
    try:
        return sources.faketime()
    except sources.Unavailable as error:
        skip(request, error)


@pytest.fixture
def prometheus(request: pytest.FixtureRequest) -> Iterator[Prometheus]:
    try:
        found = sources.prometheus()
    except sources.Unavailable as error:
        skip(request, error)
    request.config.stash[_account].used["prometheus"] = found.description
    yield found
    found.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let reports with text that is no UTF-8, such as a log of it, pass between the processes of pytest-xdist."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the settings and the global broker of one test, and a developer's `.env`, out of the others."""
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    monkeypatch.setattr(dramatiq.broker, "global_broker", dramatiq.broker.global_broker)
    reset_settings()
    yield
    reset_settings()
