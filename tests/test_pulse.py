"""A worker's pulse: a child process that shows that the worker lives, and only while it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relier.pulse import is_possible
from relier.settings import Settings
from relier.store import Store
from relier.store.client import connect
from tests.conftest import PrivateServers
from tests.processes import ROOT, alive, environment
from tests.servers import Server
from tests.waiting import wait_until

_WORKER = """
import ctypes, sys, time
from dramatiq.brokers.stub import StubBroker
from relier.process import WorkerProcess
from relier.settings import Settings
from relier.store import Store
settings = Settings()
process = WorkerProcess(StubBroker(middleware=[]), Store.from_settings(settings), settings)
process.start((), 1)
for line in sys.stdin:
    if line == "hold\\n":
        ctypes.PyDLL(None).sleep(3600)
    if line == "refence\\n":
        process.refence(process.identity)
    if line == "stop\\n":
        process.stop()
"""

on_embedded = pytest.mark.parametrize("server", ["embedded"], indirect=True)

Users = Callable[..., "User"]


class User:
    """A process with a pulse, without Dramatiq around it."""

    def __init__(self, url: str, password: str | None) -> None:
        self.store = Store.from_settings(Settings(redis_url=url, redis_password=password))
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-c", _WORKER],
            env=environment(redis_url=url, redis_password=password, heartbeat_ttl="1"),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def say(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    @property
    def beats(self) -> int:
        return sum(self.store.fleet.observe().beats.values())

    @property
    def pulses(self) -> int:
        return sum(self.store.fleet.observe().pulses.values())

    def wait_for_pulses(self, count: int = 2) -> None:
        before = self.pulses
        wait_until(lambda: self.pulses >= before + count, 60, f"{count} pulses")

    def children(self) -> list[int]:
        tasks = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(child) for task in tasks for child in task.read_text().split()]

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.store.close()


@pytest.fixture
def user() -> Iterator[Users]:
    started: list[User] = []

    def start(url: str, password: str | None = None) -> User:
        started.append(User(url, password))
        started[-1].wait_for_pulses()
        return started[-1]

    yield start
    for one in started:
        one.close()


@on_embedded
def test_the_pulse_goes_on_while_the_interpreter_is_held_and_ends_with_its_worker(store_url: str, user: Users) -> None:
    held = user(store_url)
    (child,) = held.children()
    held.say("hold")
    beats = -1

    def stand_still() -> bool:
        nonlocal beats
        before, beats = beats, held.beats
        pulses = held.pulses
        wait_until(lambda: held.pulses >= pulses + 3, 60, "three pulses")
        return before == beats == held.beats

    wait_until(stand_still, 60, "beats that stand still while the pulse goes on")

    held.process.kill()
    held.process.wait()
    wait_until(lambda: not alive(child), 60, "the end of the child")


@on_embedded
def test_a_stopped_process_has_no_pulse_until_it_goes_on(store_url: str, user: Users) -> None:
    stopped = user(store_url)
    os.kill(stopped.pid, signal.SIGSTOP)
    observer, pulses = Store.from_settings(Settings(redis_url=store_url)), -1

    def stands_still() -> bool:
        nonlocal pulses
        before, pulses = pulses, stopped.pulses
        wait_for_looks(observer, 4)
        return before == pulses == stopped.pulses

    try:
        wait_until(stands_still, 60, "a pulse that stands still")
        assert alive(stopped.children()[0])
    finally:
        os.kill(stopped.pid, signal.SIGCONT)
    stopped.wait_for_pulses()
    observer.close()


def wait_for_looks(store: Store, count: int) -> None:
    """Let so many pulses' time (0.25 s each) pass, by the server's clock."""
    start = store.fleet.observe().server_time
    wait_until(lambda: store.fleet.observe().server_time > start + count * 250_000, 60, "time")


@on_embedded
def test_a_killed_child_is_replaced_and_signals_meant_for_the_worker_do_not_end_it(store_url: str, user: Users) -> None:
    one = user(store_url)
    (first,) = one.children()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: one.children() not in ([], [first]), 60, "another child")
    one.wait_for_pulses()

    (child,) = one.children()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(child, number)
    one.wait_for_pulses()
    assert one.children() == [child]

    one.say("stop")
    wait_until(lambda: not alive(child) and not one.children(), 60, "the end of the child")
    assert one.store.fleet.workers() == {}
    assert one.store.fleet.observe().pulses == {}


@on_embedded
def test_the_pulse_follows_a_new_identity(store_url: str, user: Users) -> None:
    one = user(store_url)
    (before,) = one.store.fleet.workers()
    one.store.fleet.declare_dead(before)
    wait_until(lambda: one.store.fleet.workers().keys() - {before}, 60, "a new identity")
    one.wait_for_pulses()
    assert before not in one.store.fleet.observe().pulses


@on_embedded
def test_the_pulse_of_a_worker_that_nobody_knows_leaves_nothing(store_url: str) -> None:
    store = Store.from_settings(Settings(redis_url=store_url))
    script, (_, *rest) = store.fleet.pulse("nobody")
    assert store.runner.run(script, [str(key) for key in rest[:-2]], rest[-2:]) == b"unknown"
    assert store.fleet.observe().pulses == {}
    store.close()


def test_the_pulse_authenticates_and_selects_its_database(private_server: PrivateServers, user: Users) -> None:
    server = private_server()
    with server.client() as client:
        client.config_set("requirepass", "secret")

    one = user(server.url + "?db=3", "secret")

    with connect(Settings(redis_url=server.url, redis_password="secret")) as client:
        assert client.info("keyspace").keys() == {"db3"}
    assert one.children()


@pytest.fixture
def restarted(private_server: PrivateServers) -> Server:
    return private_server()


def test_the_pulse_comes_back_with_the_server_while_the_interpreter_is_held(restarted: Server, user: Users) -> None:
    held = user(restarted.url)
    held.say("hold")
    held.wait_for_pulses()
    restarted.kill()
    restarted.restart()  # without the scripts that it had cached
    held.store.runner.close()
    held.wait_for_pulses()


def test_there_is_none_over_tls() -> None:
    def possible(url: str) -> bool:
        return is_possible(connect(Settings(redis_url=url)))

    assert possible("redis://127.0.0.1/0")
    assert possible("unix:///tmp/some.sock")
    assert not possible("rediss://127.0.0.1/0")
