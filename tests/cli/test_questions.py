"""What a person asks at night, of a real system in that state: each question has one command that answers it.

Two workers consume one queue; one of them was killed while it ran a task. A task failed for good, one waits in a queue
that nobody consumes, and more were pushed than the limit lets through.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import processes, sources
from tests.processes import Started, alive
from tests.waiting import wait_until

#: Tasks that may be pushed in an hour.
LIMIT = 5

PUSH = """
import json, sys
import some_actors as a
from relier import AdmissionRejectedError
from dramatiq import get_broker
pushed = {"failed": a.fail.push("no such order").id, "lonely": a.low.push().id}
pushed["delayed"] = a.low.send_with_options(delay=1).message_id
pushed["killed"] = a.sleep.push(sys.argv[1], 3600).id
a.nothing.push()
try:
    a.nothing.push()
except AdmissionRejectedError:
    print(json.dumps(pushed))
"""


@dataclass
class Night:
    """The system that somebody was called for.

    Parameters:
      tasks: the ids of the tasks, by what became of them.
      killed, survivor: process ids.
    """

    folder: Path
    settings: dict[str, str | None]
    tasks: dict[str, str]
    killed: int
    survivor: int

    def ask(self, *command: str) -> str:
        """Return what a person reads."""
        return processes.rl(self.folder, *command, **self.settings).stdout

    def data(self, *command: str) -> Any:
        return processes.rl_json(self.folder, *command, **self.settings)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    folder, server = tmp_path_factory.mktemp("night"), sources.start("embedded", private=True)
    processes.actors(folder)
    (folder / "push.py").write_text(PUSH)
    settings: dict[str, str | None] = {
        "redis_url": server.url,
        "actors": "some_actors",
        "admission_limit": str(LIMIT),
        "admission_window": "3600",
        "unknown_actor_grace": "3600",
        "resurrection_claim_grace_period": "1",
        "graceful_shutdown_timeout": "0.1",
    }
    worker = ("dramatiq", "relier.workers", "-p", "1", "-t", "2", "-Q", "default")
    with (
        Started(folder, "relier_cli.app", "run-resurrector", **settings),
        Started(folder, *worker, **settings),
        Started(folder, *worker, **settings),
    ):
        runs = folder / "runs"
        rl = Night(folder, settings, {}, 0, 0)
        wait_until(lambda: _alive(rl) == ["resurrector", "worker", "worker"], 60, "the fleet")
        pushed = processes.run(folder, "push", str(runs), **settings)
        rl.tasks = json.loads(pushed.stdout or f'"{pushed.stderr}"')
        rl.killed = _ran(runs, 1)
        os.kill(rl.killed, signal.SIGKILL)
        rl.survivor = _ran(runs, 2)
        wait_until(lambda: not alive(rl.killed), 60, "its end")
        wait_until(lambda: _alive(rl) == ["resurrector", "worker"], 60, "its burial")
        wait_until(lambda: rl.data("tasks", "list", "--state", "due")["tasks"], 60, "a task that waits for a consumer")
        yield rl
    server.close()


def _ran(runs: Path, count: int) -> int:
    """Wait for a run of the task that sleeps; returns the process it runs in."""
    wait_until(lambda: len(_lines(runs)) >= count, 60, f"run {count}")
    return int(_lines(runs)[count - 1])


def _lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def _alive(night: Night) -> list[str]:
    return sorted(w["role"] for w in night.data("worker", "status")["workers"] if w["state"] == "alive")


def test_is_anything_running(night: Night) -> None:
    (task,) = night.data("tasks", "inflight")["tasks"]
    assert task["id"] == night.tasks["killed"]
    assert f":{night.survivor}:" in task["worker"]
    assert "1 running on 1 worker" in night.ask("tasks", "inflight")


def test_why_does_my_task_not_run_nobody_consumes_its_queue(night: Night) -> None:
    queues = {queue["name"]: queue for queue in night.data("queue", "list")["queues"]}
    assert queues["low_priority"]["messages"] == 1
    assert "nobody consumes it" in queues["low_priority"]["notes"]
    consumed = {queue for worker in night.data("worker", "status")["workers"] for queue in worker["queues"]}
    assert "default" in consumed
    assert "low_priority" not in consumed
    assert "Nobody consumes the queue 'low_priority'" in night.ask("doctor")


def test_is_the_resurrector_running_and_what_waits_for_it(night: Night) -> None:
    shown = night.ask("worker", "status")
    assert any("resurrector" in line and "alive" in line for line in shown.splitlines())
    assert "dead workers' tasks are put back by: 1 resurrector" in shown
    (due,) = night.data("tasks", "list", "--state", "due")["tasks"]
    assert (due["id"], due["reason"]) == (night.tasks["delayed"], "no consumer")


def test_why_is_it_in_the_dlq(night: Night) -> None:
    shown = night.ask("dlq", "inspect", night.tasks["failed"])
    assert "ValueError: no such order" in shown
    assert "likely fix: " in shown
    assert night.tasks["failed"] in night.ask("dlq", "list")


def test_did_it_run_twice(night: Night) -> None:
    shown = night.ask("tasks", "inspect", night.tasks["killed"])
    assert "run 1 crashed" in shown
    assert "run 2 began" in shown
    assert night.data("tasks", "inspect", night.tasks["killed"])["resurrection_count"] == 1


def test_is_the_cluster_shedding(night: Night) -> None:
    assert night.ask("admission", "status").startswith(f"SHEDDING ({LIMIT}/{LIMIT}, 100.0%)")


def test_is_the_failure_rate_rising(night: Night) -> None:
    shown = night.ask("slo", "status")
    assert any(line.split()[:1] == ["fail"] for line in shown.splitlines()), shown


def test_is_redis_set_up_right(night: Night) -> None:
    for command in (["doctor"], ["config", "validate"]):
        findings = {finding["name"]: finding["level"] for finding in night.data(*command)["findings"]}
        assert findings["eviction policy"] == "ok"
        assert findings["persistence"] == "ok"
        assert findings["reachability"] == "ok"


def test_the_account_adds_up(night: Night) -> None:
    assert "Every accepted task is accounted for." in night.ask("audit")
