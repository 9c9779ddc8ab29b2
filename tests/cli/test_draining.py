from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relier.errors import RelierError
from relier.hosting import Hosting
from relier.settings import Settings
from relier.store import Store
from relier_cli import draining
from relier_cli.draining import find_worker, refuse_shared
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


@pytest.mark.parametrize("command", ["drain", "restart"])
@pytest.mark.parametrize("name", ["", " "])
def test_an_empty_name_is_misuse_even_where_there_is_one_worker(
    tmp_path: Path, store: Store, store_url: str, command: str, name: str
) -> None:
    store.fleet.register("w1", {"host": "here", "hosting": Hosting.ALONE})
    done = rl(tmp_path, "worker", command, name, redis_url=store_url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "A worker's name is empty" in done.stderr


@pytest.mark.parametrize("hosting", [Hosting.SHARED, Hosting.EMBEDDED])
def test_a_worker_whose_end_would_end_others_is_not_restarted(hosting: Hosting) -> None:
    with pytest.raises(RelierError, match=r"^Worker w1 .* Restart that "):
        refuse_shared({"w1": {"hosting": hosting}}, ["w1"])


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
        done = rl(tmp_path, "worker", "restart", first, redis_url=url)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr

        drained = draining.order(store, first, "drain", wait=True, timeout=None)

        assert drained.state == "drained"
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

        done = [draining.order(store, name, "drain", wait=True, timeout=None) for name in names]

        assert [outcome.state for outcome in done] == ["ended", "ended"]
        assert worker.ended() == resurrector.ended() == 0, worker.output + resurrector.output
    store.close()


def test_a_worker_that_does_not_answer_is_reported(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "ANSWER", 0.2)
    store.fleet.register("w1", {"host": "here", "hosting": Hosting.ALONE})

    with pytest.raises(RelierError, match=r"^Worker w1 does not answer\."):
        draining.order(store, "w1", "drain", wait=False, timeout=None)
