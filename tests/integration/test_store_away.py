"""Redis that goes away, forgets scripts or cuts connections: nothing is lost, nobody is declared dead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from tests.conftest import PrivateServers
from tests.integration.conftest import Fleets
from tests.integration.harness import Harness

#: How long (s) Redis is away.
AWAY = 5.0


class Load:
    """Tasks that are pushed all the time; `sent` are those whose push returned."""

    def __init__(self, fleet: Harness) -> None:
        self.fleet = fleet
        self.sent: list[str] = []
        self.unsure = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._push, daemon=True)

    def _push(self) -> None:
        actors = self.fleet.actors
        # With two servers each failure waits until the store's write is durable, up to a second.
        kinds = [actors.flaky, *[actors.quick, actors.aquick] * (30 if self.fleet.settings.broker_url else 1)]
        while not self._over.wait(0.002):
            number = len(self.sent)
            try:
                self.sent.append(kinds[number % len(kinds)].push(number % 2).id)
            except redis.RedisError:
                self.unsure += 1  # it may have arrived

    @contextmanager
    def running(self) -> Iterator[Load]:
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()


def test_nothing_happens_when_redis_freezes_for_a_while(fleets: Fleets, private_server: PrivateServers) -> None:
    server = private_server("embedded")

    def freeze(fleet: Harness) -> None:
        server.stop()
        _pass(AWAY)
        server.cont()

    _away(fleets(server), freeze)


@pytest.mark.parametrize("kind", ["embedded", "redis"])
def test_nothing_happens_when_redis_is_killed_and_comes_back(
    fleets: Fleets, private_server: PrivateServers, kind: str
) -> None:
    server = private_server(kind)

    def kill(fleet: Harness) -> None:
        server.kill()
        _pass(AWAY)
        server.restart()

    _away(fleets(server), kill)


@pytest.mark.parametrize("which", ["store", "broker"])
def test_store_and_broker_may_be_two_servers_and_either_may_be_killed(
    fleets: Fleets, private_server: PrivateServers, which: str
) -> None:
    servers = {"store": private_server("embedded"), "broker": private_server("embedded")}

    def kill(fleet: Harness) -> None:
        servers[which].kill()
        _pass(2.0)
        servers[which].restart()

    _away(fleets(servers["store"], broker_url=servers["broker"].url), kill)


@pytest.mark.parametrize("kind", ["embedded", "redis"])
def test_a_lost_script_cache_and_cut_connections_are_invisible(
    fleets: Fleets, private_server: PrivateServers, kind: str
) -> None:
    server = private_server(kind)

    def harass(fleet: Harness) -> None:
        with server.client() as client:
            for _ in range(15):
                client.script_flush()
                client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
                client.script_flush()
                _pass(0.1)
                client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                client.script_flush()
                _pass(0.2)

    counters = _away(fleets(server), harass)
    assert counters.get("refused", 0) == 0


def _away(fleet: Harness, trouble: Callable[[Harness], None]) -> dict[str, int]:
    """Let trouble come in the middle of a load with long tasks running; returns the counters."""
    fleet.workers(2)
    identities = {process.identity for process in fleet.processes}
    long = [fleet.actors.gated.push(fleet.gate()).id, fleet.actors.agated.push(fleet.gate()).id]
    fleet.wait(lambda: len(fleet.effects("began")) == 2, what="the long tasks")
    load = Load(fleet)
    with load.running():
        fleet.wait(lambda: len(fleet.effects("ran")) > 100, what="some work done")
        trouble(fleet)
        seen = len(fleet.effects("ran"))
        fleet.wait(lambda: len(fleet.effects("ran")) > seen + 100, what="work after the trouble")
    fleet.open_gate()

    # A push that failed may have arrived all the same: what was accepted decides.
    fleet.wait(lambda: set(long) | set(load.sent) <= set(fleet.counted("ran")), 30, "every task's run")
    accepted = fleet.wait(lambda: fleet.store.counters()["accepted"], what="counters")
    counters = fleet.settle(accepted, 30)
    sent = len(load.sent) + len(long)
    assert sent <= counters["accepted"] <= sent + load.unsure, (load.unsure, fleet.report())
    assert counters["completed"] == counters["accepted"], fleet.report()
    assert counters.get("crashes", 0) == 0, fleet.report()
    assert set(fleet.store.fleet.workers()) == identities, fleet.report()
    assert all(not process.is_over for process in fleet.processes)
    return counters


def _pass(seconds: float) -> None:
    """Let time pass: it is the trouble itself, nothing is waited for."""
    time.sleep(seconds)
