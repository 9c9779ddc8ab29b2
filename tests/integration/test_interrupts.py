"""Dramatiq raises time limits and shutdown notices in worker threads, whatever these are doing."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from relier.store import shard_of
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


def test_a_copy_that_the_store_cannot_judge_is_not_acknowledged(fleet: Harness) -> None:
    task, old = fleet.actors.quick.message(1), fleet.actors.quick.message_with_options(args=(2,), max_age=1)
    records = {fleet.store.keys.shard(shard_of(m.message_id), "")[0] for m in (task, old)}
    for key in records:
        fleet.store.client.set(key, "not a hash: every script of this shard fails")
    worker = fleet.worker()
    worker.wait_ready()

    fleet.broker.enqueue(task)
    fleet.broker.enqueue(old)

    fleet.wait(lambda: worker.text().count("Unhandled error during post_process_message") == 2, what="its refusal")
    assert fleet.broker.do_qsize("default") == 2
    fleet.store.client.delete(*records)
    worker.kill()
    fleet.worker()
    counters = fleet.settle(2)
    assert counters["completed"] + counters["discarded"] == 2
    assert fleet.effects("ran", task.message_id)
