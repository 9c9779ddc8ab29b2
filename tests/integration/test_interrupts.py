"""Dramatiq raises time limits and shutdown notices in worker threads, whatever these are doing."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PrivateServers
from tests.integration.conftest import Fleets
from tests.integration.harness import Harness, Process
from tests.servers import RedisServer

TIME_LIMIT = "Time limit exceeded"


def _stopped_at(fleet: Harness, point: str, **options: Any) -> Process:
    """Start a worker that stops itself at a failpoint, once."""
    worker = fleet.worker(threads=1, failpoints=f"{point}=stop:{fleet.marker(point)}", **options)
    worker.wait_ready()
    return worker


def _wait_stopped(fleet: Harness, worker: Process) -> None:
    fleet.wait(lambda: _state(worker.pid) == "T", what="a worker that stopped itself")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _interrupt_while_redis_is_away(fleet: Harness, server: RedisServer, worker: Process) -> None:
    """Let the time limit pass while the thread waits for the store."""
    server.kill()
    worker.signal(signal.SIGCONT)
    fleet_log = worker.text
    fleet.wait(lambda: TIME_LIMIT in fleet_log(), what="the interrupt")
    server.restart()


@pytest.mark.parametrize("point", ["claimed", "done", "committed"])
def test_a_time_limit_that_passes_while_redis_is_away_loses_nothing(
    fleets: Fleets, private_server: PrivateServers, point: str
) -> None:
    server = private_server("embedded")
    fleet = fleets(server)
    worker = _stopped_at(fleet, point)
    task = fleet.actors.limited.send_with_options(args=(fleet.gate(),), on_success="told").message_id
    fleet.open_gate()
    _wait_stopped(fleet, worker)

    _interrupt_while_redis_is_away(fleet, server, worker)

    counters = fleet.settle(2, 40)
    assert counters["completed"] == 2, fleet.report()
    assert fleet.effects("ran", task)
    assert fleet.effects("told")


def test_a_time_limit_that_passes_while_the_claim_is_on_its_way_loses_nothing(
    fleets: Fleets, private_server: PrivateServers
) -> None:
    server = private_server("embedded")
    fleet = fleets(server)
    worker = _stopped_at(fleet, "fetched")
    task = fleet.actors.limited.push(fleet.gate()).id
    fleet.open_gate()
    _wait_stopped(fleet, worker)

    server.stop()
    worker.signal(signal.SIGCONT)
    fleet.wait(lambda: TIME_LIMIT in worker.text(), what="the interrupt")
    server.cont()

    counters = fleet.settle(1)
    assert counters["completed"] == 1, fleet.report()
    assert len(fleet.effects("ran", task)) == 1
