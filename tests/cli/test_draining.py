from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from relier.errors import RelierError
from relier.hosting import Hosting
from relier.settings import Settings
from relier.store import Store
from relier_cli.draining import find_worker
from tests.cli.conftest import CommandLine
from tests.conftest import PrivateServers
from tests.processes import Started, actors, alive, rl, rl_json, run
from tests.waiting import wait_until

FLEET: dict[str, dict[str, Any]] = {
    "web-1:12:aa": {"host": "web-1"},
    "web-1:13:bb": {"host": "web-1"},
    "web-2:12:cc": {"host": "web-2"},
}


@pytest.mark.parametrize("name", ["web-2:12:cc", "web-2", "web-2:1"])
def test_a_worker_is_named_by_its_id_a_unique_prefix_or_its_host(name: str) -> None:
    assert find_worker(FLEET, name) == "web-2:12:cc"


def test_an_ambiguous_name_and_an_unknown_one_name_the_candidates() -> None:
    with pytest.raises(RelierError, match=r"'web-1' means 2 workers; name one of them: web-1:12:aa, web-1:13:bb\."):
        find_worker(FLEET, "web-1")
    with pytest.raises(
        RelierError, match=r"No worker is named 'db'. There are web-1:12:aa, web-1:13:bb, web-2:12:cc\."
    ):
        find_worker(FLEET, "db")
    with pytest.raises(RelierError, match=r"No worker is named 'db'. There is none at all\."):
        find_worker({}, "db")


@pytest.mark.parametrize("hosting", [Hosting.SHARED, Hosting.EMBEDDED])
def test_a_worker_whose_end_would_end_others_is_not_restarted(rl: CommandLine, store: Store, hosting: Hosting) -> None:
    store.fleet.register("w1", {"host": "here", "hosting": hosting})

    done = rl("worker", "restart", "w1")

    assert done.returncode == 1
    assert "Worker w1 " in done.stderr
    assert "Traceback" not in done.stderr


def test_one_of_several_processes_stays_up_drained_and_the_others_go_on(
    tmp_path: Path, private_server: PrivateServers
) -> None:
    url = private_server().url
    store = Store.from_settings(Settings(redis_url=url))
    module, started = actors(tmp_path), tmp_path / "started"
    (tmp_path / "push.py").write_text(f"import {module}\nfor _ in range(4): {module}.sleep.push({str(started)!r}, 0)")
    with Started(tmp_path, "dramatiq", "relier.workers", module, "-p", "2", "-t", "1", redis_url=url) as main:
        wait_until(lambda: len(store.fleet.workers()) == 2, 60, "two workers")
        first, second = store.fleet.workers()
        pids = {worker: int(told["pid"]) for worker, told in store.fleet.workers().items()}
        assert rl(tmp_path, "worker", "restart", first, redis_url=url).returncode == 1

        (drained,) = rl_json(tmp_path, "worker", "drain", first, "--wait", redis_url=url)

        assert drained == {"worker": first, "state": "drained", "successor": None}
        rows = rl_json(tmp_path, "worker", "status", redis_url=url)["workers"]
        assert {row["id"]: row["state"] for row in rows} == {first: "drained", second: "alive"}
        assert run(tmp_path, "push", redis_url=url).returncode == 0
        wait_until(lambda: started.exists() and len(started.read_text().split()) == 4, 60, "the runs")
        assert {int(pid) for pid in started.read_text().split()} == {pids[second]}
        assert alive(pids[first])
        assert main.terminate() == 0, main.output
    store.close()


def test_a_worker_alone_and_a_resurrector_end_when_they_are_drained(
    tmp_path: Path, private_server: PrivateServers
) -> None:
    url = private_server().url
    store = Store.from_settings(Settings(redis_url=url))
    with (
        Started(tmp_path, "dramatiq", "relier.workers", actors(tmp_path), "-p", "1", redis_url=url) as worker,
        Started(tmp_path, "relier_cli.app", "run-resurrector", redis_url=url) as resurrector,
    ):
        wait_until(lambda: len(store.fleet.workers()) == 2, 60, "both")
        fleet = store.fleet.workers()
        names = sorted(fleet, key=lambda name: fleet[name]["role"])

        done = rl_json(tmp_path, "worker", "drain", *names, "--wait", redis_url=url)

        assert [(outcome["worker"], outcome["state"]) for outcome in done] == [(name, "ended") for name in names]
        assert worker.ended() == resurrector.ended() == 0, worker.output + resurrector.output
    store.close()


def test_a_worker_that_does_not_answer_is_reported(tmp_path: Path, private_server: PrivateServers) -> None:
    url = private_server().url
    store = Store.from_settings(Settings(redis_url=url))
    with Started(tmp_path, "dramatiq", "relier.workers", actors(tmp_path), "-p", "1", redis_url=url):
        ((name, told),) = wait_until(store.fleet.workers, 60, "a worker").items()
        os.kill(told["pid"], signal.SIGSTOP)

        done = rl(tmp_path, "worker", "drain", name, redis_url=url)

        assert done.returncode == 1
        assert f"Worker {name} does not answer." in done.stderr
        os.kill(told["pid"], signal.SIGKILL)
    store.close()
