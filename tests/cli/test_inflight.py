"""`rl tasks inflight`: once, and for as long as somebody looks."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from relier.store import Store
from relier_cli.inflight import p95
from tests import guard
from tests.cli.conftest import CommandLine, Tasks
from tests.conftest import PrivateServers
from tests.processes import Started, environment
from tests.servers import RedisServer
from tests.waiting import wait_until


@pytest.fixture(params=["embedded"])
def server(request: pytest.FixtureRequest) -> RedisServer:
    """One kind of server will do: what the command asks of it has tests of its own."""
    return request.getfixturevalue("servers").store(request.param)  # type: ignore[no-any-return]


def following(folder: Path, url: str, *options: str) -> Started:
    command = ("relier_cli", "tasks", "inflight", "--follow", "--interval", "0.1", *options)
    return Started(folder, *command, redis_url=url)


def test_what_runs_is_shown_the_longest_first(rl: CommandLine, tasks: Tasks) -> None:
    first, second = tasks.running(queue="reports")[0], tasks.running()[0]
    tasks.completed()
    tasks.scheduled()

    data = rl.json("tasks", "inflight")

    assert [task["id"] for task in data["tasks"]] == [first.task_id, second.task_id]
    assert {(task["actor"], task["worker"], task["attempts"]) for task in data["tasks"]} == {("work", "w1", 0)}
    assert (data["running"], data["callbacks_running"], data["workers"], data["queue_depth"]) == (2, 0, 1, 0)
    assert data["tasks"][0]["seconds"] >= data["tasks"][1]["seconds"] >= 0
    assert data["p95_seconds"] == data["tasks"][0]["seconds"]

    lines = rl("tasks", "inflight").stdout.splitlines()
    assert lines[0].split()[:4] == ["ID", "ACTOR", "QUEUE", "WORKER"]
    assert lines[-2].startswith("2 running on 1 worker; 95 % run for less than ")
    assert lines[-1] == "messages in the broker: none"


def test_what_a_dead_worker_left_runs_until_it_is_buried(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    sending, _ = tasks.running()
    store.fleet.declare_dead(Tasks.worker)
    data = rl.json("tasks", "inflight")
    assert ([task["id"] for task in data["tasks"]], data["workers"]) == ([sending.task_id], 0)


def test_nothing_runs(rl: CommandLine) -> None:
    data = rl.json("tasks", "inflight")
    assert (data["tasks"], data["p95_seconds"]) == ([], None)
    assert rl("tasks", "inflight").stdout.splitlines()[-2] == "0 running on 0 workers"


@pytest.mark.parametrize("broker", ["redis", "amqp"])
def test_what_runs_is_shown_while_the_broker_is_away(rl: CommandLine, broker: str) -> None:
    """It is not the store that is away then."""
    assert rl.json("tasks", "inflight", broker_url=f"{broker}://127.0.0.1:1")["in_broker"] == {}


def test_a_follower_tells_what_begins_and_leaves_and_ends_with_a_signal(
    tmp_path: Path, store_url: str, store: Store, tasks: Tasks
) -> None:
    with following(tmp_path, store_url) as follower:
        wait_until(lambda: "0 running on 1 worker" in follower.output, 60, "the first look")
        sending, fence = tasks.running()
        wait_until(lambda: f"+ {sending.task_id} work on w1" in follower.output, 60, "its begin")
        assert store.tasks.commit(Tasks.worker, sending, fence, hooks=False)
        wait_until(lambda: f"- {sending.task_id} work on w1" in follower.output, 60, "its end")
        follower.process.send_signal(signal.SIGINT)
        assert follower.ended() == 0
    assert "Traceback" not in follower.output


def test_a_follower_ends_when_nobody_reads_it_any_more_though_nothing_changes(tmp_path: Path, store_url: str) -> None:
    command = [sys.executable, "-m", "relier_cli", "tasks", "inflight", "--follow", "--interval", "0.1"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(redis_url=store_url), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as follower:
        guard.watch(follower.pid)
        assert follower.stdout is not None and follower.stderr is not None
        assert follower.stdout.readline()
        follower.stdout.close()
        assert follower.wait(60) == 0, follower.stderr.read()
        guard.forget(follower.pid)
        assert follower.stderr.read() == b""


def test_a_follower_survives_redis_going_away_and_coming_back(tmp_path: Path, private_server: PrivateServers) -> None:
    server = private_server("redis")

    def looks() -> list[Any]:
        return [json.loads(line) for line in follower.output.splitlines() if line.startswith("{")]

    with following(tmp_path, server.url, "--json") as follower:
        wait_until(looks, 60, "the first look")
        server.kill()
        wait_until(lambda: "Still trying" in follower.output, 60, "a word")
        before = len(looks())
        server.restart()
        wait_until(lambda: len(looks()) > before + 1, 60, "more looks")
        follower.process.send_signal(signal.SIGINT)
        assert follower.ended() == 0
    assert follower.output.count("Still trying") == follower.output.count("Redis answers again.") == 1
    assert "Traceback" not in follower.output


def test_a_terminal_is_painted_anew(tmp_path: Path, store_url: str, tasks: Tasks) -> None:
    sending, _ = tasks.running()
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "relier_cli", "tasks", "inflight", "--follow", "--interval", "0.1"]
    environ = {**environment(redis_url=store_url), "COLUMNS": "200", "TERM": "xterm"}
    follower = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    guard.watch(follower.pid)
    os.close(theirs)
    seen = b""
    try:
        while seen.count(b"\x1b[H") < 3:
            assert select.select([ours], [], [], 60)[0], seen
            seen += os.read(ours, 65536)
        follower.send_signal(signal.SIGINT)
        assert follower.wait(60) == 0
    finally:
        follower.kill()
        follower.wait()
        guard.forget(follower.pid)
        os.close(ours)
    assert sending.task_id.encode() in seen
    assert b"Traceback" not in seen


@pytest.mark.parametrize(
    ("ages", "expected"), [([5.0], 5.0), ([float(n) for n in range(1, 101)], 95.0), ([2.0, 1.0], 2.0)]
)
def test_the_95th_percentile_is_the_nearest_rank(ages: list[float], expected: float) -> None:
    assert p95(ages) == expected
