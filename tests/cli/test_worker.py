from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from relier.leases import SLOTS
from relier.settings import Settings
from relier.store import Store
from tests.cli.conftest import CommandLine, Tasks
from tests.conftest import PrivateServers
from tests.processes import Started, actors, rl_json, run
from tests.waiting import wait_until


def test_an_empty_fleet_says_so(rl: CommandLine) -> None:
    assert rl.json("worker", "status")["workers"] == []
    text = rl("worker", "status").stdout
    assert "resurrector  none" in text
    assert "no resurrector, and no worker" in text


def test_a_worker_that_is_gone_shows_until_its_tasks_are_put_back(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    tasks.running()
    (row,) = rl.json("worker", "status")["workers"]
    assert (row["state"], row["tasks"], row["queues"]) == ("silent", 1, ["default"])

    store.fleet.declare_dead(Tasks.worker)
    (row,) = rl.json("worker", "status")["workers"]
    assert (row["id"], row["state"], row["tasks"]) == ("w1", "gone", 1)


def test_workers_and_resurrector_show_what_they_do(tmp_path: Path, private_server: PrivateServers) -> None:
    url = private_server().url
    store = Store.from_settings(Settings(redis_url=url))
    module, started = actors(tmp_path), tmp_path / "started"
    (tmp_path / "push.py").write_text(f"import {module}; {module}.sleep.push({str(started)!r}, 120)")

    with (
        Started(tmp_path, "dramatiq", "relier.workers", module, "-p", "1", "-t", "3", redis_url=url),
        Started(tmp_path, "relier_cli.app", "run-resurrector", redis_url=url),
    ):
        wait_until(lambda: len(store.fleet.workers()) == 2, 60, "worker and resurrector")
        assert run(tmp_path, "push", redis_url=url).returncode == 0
        wait_until(started.exists, 60, "the task's start")

        fleet = wait_until(lambda: _swept_by_resurrector(tmp_path, url), 60, "a sweep by the resurrector")

        resurrector, worker = fleet["workers"]
        assert (worker["role"], worker["state"], worker["queues"]) == ("worker", "alive", ["default", "low_priority"])
        assert (worker["threads"], worker["tasks"], worker["leases"]) == (3, 1, [])
        assert worker["uptime"] > 0
        assert (resurrector["role"], resurrector["state"]) == ("resurrector", "alive")
        assert fleet["sweepers"] == "1 resurrector"
        assert fleet["free_leases"] == []

        (task,) = rl_json(tmp_path, "tasks", "list", "--state", "running", redis_url=url)["tasks"]
        assert (task["actor"], task["worker"]) == ("sleep", worker["id"])
        assert rl_json(tmp_path, "doctor", redis_url=url)["ok"]
        assert rl_json(tmp_path, "audit", redis_url=url)["running"] == 1
        os.kill(worker["pid"], signal.SIGKILL)  # it would wait for its task
    store.close()


def _swept_by_resurrector(folder: Path, url: str) -> Any:
    """Return the fleet's status once the resurrector has all leases."""
    fleet = rl_json(folder, "worker", "status", redis_url=url)
    leases = [row["leases"] for row in fleet["workers"] if row["role"] == "resurrector"]
    return fleet if leases and len(leases[0]) == len(SLOTS) else None
