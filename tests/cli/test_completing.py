"""Tab offers what there is: quickly, without a word when the store is away, and nothing that a shell would run."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relier.holds import pause_queue
from relier.settings import reset_settings
from relier_cli import completing
from tests import processes
from tests.cli.conftest import Tasks

ASKED = (completing.complete_queue, completing.complete_actor, completing.complete_worker)


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    yield
    reset_settings()


@pytest.fixture
def _on_store(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIER_REDIS_URL", store_url)
    reset_settings()


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take its time."""
    monkeypatch.setattr(completing, "PATIENCE", 30.0)


@pytest.mark.usefixtures("_on_store", "_patient")
@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_queues_actors_and_workers_are_those_that_there_are(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = tasks.store.fleet
    fleet.register("host:12:ab", {"role": "worker", "queues": ["mail"], "actors": "d"}, {"send": 1, "store": 1})
    pause_queue(tasks.store, "maimed", "test", "")

    assert completing.complete_queue("mai") == ["mail", "maimed"]
    assert completing.complete_queue("low") == ["low_priority"]
    assert completing.complete_worker("ho") == ["host:12:ab"]
    monkeypatch.setenv("COMP_WORDS", "rl\nworker\ndrain\nhost\n:\n1")  # Words end at colons, for bash.
    monkeypatch.setenv("COMP_CWORD", "5")
    assert completing.complete_worker("1") == ["12:ab"]


@pytest.mark.usefixtures("_on_store", "_patient")
@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_a_name_that_a_shell_would_run_is_not_offered(tasks: Tasks) -> None:
    tasks.store.fleet.register("h:1:a", {"role": "worker", "queues": ["x$(reboot)", "x`id`", "x y", "x-ok"]})
    assert completing.complete_queue("x") == ["x-ok"]


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "nonsense", ""])
def test_nothing_is_offered_said_or_started_without_a_store(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RELIER_REDIS_URL", url)
    monkeypatch.setenv("RELIER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("RELIER_NO_SUCH_SETTING", "1")  # Of which a command would warn.
    reset_settings()
    before = logging.root.manager.disable

    assert [ask("") for ask in ASKED] == [[], [], []]

    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == before
    assert not (tmp_path / "state").exists(), "no embedded server was started"


def test_bash_completes_commands_and_settings(tmp_path: Path) -> None:
    (tmp_path / "rl").write_text(f"#!{sys.executable}\nfrom relier_cli.__main__ import main\nmain()\n")
    (tmp_path / "rl").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"

    script = """
        eval "$(_RL_COMPLETE=source_bash rl)"
        tab() { COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); _rl_completion rl; echo "${COMPREPLY[@]}"; }
        tab rl config set HEARTB
        tab rl tasks list --state sch
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**processes.environment(), "PATH": path},
        capture_output=True,
        text=True,
        timeout=processes.PATIENCE,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["HEARTBEAT_TTL", "scheduled"]
