"""`rl worker status --me`: what a container's probe asks."""

from __future__ import annotations

import socket

import pytest

from tests import processes
from tests.cli.conftest import CommandLine
from tests.waiting import wait_until

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


def test_a_host_without_a_process_is_ill_and_one_with_a_worker_is_well(rl: CommandLine) -> None:
    asked = ("worker", "status", "--me")
    assert rl(*asked).returncode == 1
    name = processes.actors(rl.folder)
    with processes.Started(
        rl.folder, "dramatiq", "relier.workers", name, "-p", "1", "-t", "1", redis_url=rl.url
    ) as worker:
        wait_until(lambda: rl(*asked).returncode == 0, 60, "a worker that is well")
        (row,) = rl.json(*asked)["workers"]
        assert row["host"] == socket.gethostname()
        assert worker.terminate() == 0
    gone = rl(*asked)
    assert gone.returncode == 1
    assert "No process of this host" in gone.stderr


def test_a_redis_that_is_away_is_no_reason_to_restart_a_worker(rl: CommandLine) -> None:
    done = rl("worker", "status", "--me", redis_url="redis://127.0.0.1:1/0")
    assert done.returncode == 0
    assert done.stderr.startswith("unknown: Relier cannot reach Redis")
