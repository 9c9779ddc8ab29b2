"""`rl demo`, with real processes, real kills and real signals; and the checks that its account must pass."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from relier_cli.demo.account import Account, Evidence, draw_up
from relier_cli.demo.effects import Effects, EffectWriter, WorkerEffects
from relier_cli.demo.environment import Surroundings
from relier_cli.demo.files import FileFacts, aggregate, library_files, measure
from relier_cli.demo.fleet import Worker
from relier_cli.demo.killing import Death, plans
from relier_cli.demo.report import Report
from relier_cli.demo.run import Demo
from tests import schemas
from tests.conftest import PrivateServers
from tests.waiting import wait_until

ROOT = Path(__file__).parent.parent
PROC = Path("/proc")

#: So many tasks that on a busy machine, too, each killed worker is replaced before the last one is done.
FILES = 240

#: Settings of a user's own work, some of them wrong. The demo must not care.
DISTURBING = {
    "RELIER_ACTORS": "no_such_module",
    "RELIER_NAMESPACE": "production",
    "RELIER_STATE_DIR": "/no/such/folder",
    "RELIER_BROKER_URL": "amqp://localhost",
    "RELIER_HEARTBEAT_TTL": "soon",
    "RELIER_RESURRECTION_ENABLED": "false",
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for everything that the demo writes; its name tells the demo's processes from others."""
    path = Path(tempfile.mkdtemp(prefix="rl-test-demo-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def start(folder: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "relier_cli.app", "demo", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), **environment},
    )


def processes_of(folder: Path) -> set[int]:
    """Return the pids of all processes that a demo in this folder started, and of itself."""
    found = set()
    for process in PROC.iterdir() if PROC.is_dir() else ():
        if process.name.isdigit():
            try:
                told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in told:
                found.add(int(process.name))
    return found


def left_behind(folder: Path) -> list[str]:
    return [f"process {pid}" for pid in processes_of(folder)] + [path.name for path in folder.iterdir()]


# -- the demo as the user runs it -------------------------------------------------------------------------------


def test_every_task_is_accounted_for_although_three_workers_were_killed(folder: Path) -> None:
    demo = start(folder, "--limit", str(FILES), "--seed", "7", "--json", **DISTURBING)
    out, told = demo.communicate(timeout=200)

    account: dict[str, Any] = json.loads(out)
    schemas.check("demo", account)
    assert demo.returncode == 0, told
    assert account["agrees"] is True
    assert account["disagreements"] == []
    assert account["pushed"] == account["completed"] == FILES
    assert account["dead"] == account["discarded"] == 0
    assert account["tasks"] == account["direct"]
    assert account["tasks"]["files"] == FILES
    assert account["kills"] == len(account["deaths"]) == 3
    for death in account["deaths"]:
        assert death["orphans"] > 0
        assert len(death["recovery_seconds"]) == death["orphans"]
    assert account["runs"] == FILES + account["reruns"]
    # Besides the orphans there may be tasks that did their work, or were granted, and could not say so any more.
    assert account["crashes"] == account["recoveries"] >= account["reruns"]
    assert account["reruns"] >= sum(death["orphans"] for death in account["deaths"])
    assert "Recovered 3: its" in told
    assert left_behind(folder) == []


def test_a_given_redis_is_left_as_it_was(folder: Path, private_server: PrivateServers) -> None:
    server = private_server("redis")
    with server.client() as client:
        client.set("rl:relier:{00}:workers", "the user's")
        demo = start(folder, "--limit", "40", "--kills", "1", RELIER_REDIS_URL=server.url)
        out, told = demo.communicate(timeout=150)
        assert demo.returncode == 0, out + told
        assert "pushed       40 = 40 completed + 0 dead + 0 discarded" in out
        assert "All agree" in out
        assert client.keys() == [b"rl:relier:{00}:workers"]
    assert left_behind(folder) == []


@pytest.mark.skipif(not PROC.is_dir(), reason="looks for processes in /proc")
@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,)], ids=["Ctrl-C", "SIGTERM"])
def test_an_interruption_leaves_nothing_running(folder: Path, signals: tuple[signal.Signals, ...]) -> None:
    demo = start(folder, "--plain")
    wait_for_work(demo)
    assert len(processes_of(folder)) > 6  # itself, two workers of two processes each, resurrector, guardian, server

    for number in signals:
        demo.send_signal(number)
    _, told = demo.communicate(timeout=100)

    assert demo.returncode == 130
    assert told == "Interrupted: every process of the demo has ended.\n"
    assert left_behind(folder) == []


@pytest.mark.skipif(not PROC.is_dir(), reason="looks for processes in /proc")
def test_even_a_killed_demo_leaves_nothing_running(folder: Path) -> None:
    demo = start(folder, "--plain")
    wait_for_work(demo)
    demo.kill()
    demo.communicate(timeout=100)
    wait_until(lambda: not processes_of(folder), timeout=60, what="the end of the demo's processes")


def test_an_unreachable_redis_is_one_line(folder: Path) -> None:
    demo = start(folder, RELIER_REDIS_URL="redis://:secret@127.0.0.1:1/0")
    out, told = demo.communicate(timeout=100)
    assert demo.returncode == 1
    assert out == ""
    assert told == "Relier cannot reach Redis (redis://:***@127.0.0.1:1/0). Refusing to start.\n"
    assert left_behind(folder) == []


def wait_for_work(demo: subprocess.Popen[str]) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if "Working: " in line:
            return
    raise AssertionError("the demo never began to work")


# -- its account ------------------------------------------------------------------------------------------------

FACTS = {name: FileFacts(name * 64, 10, 2, {"NAME": 3}, True) for name in "abc"}


@pytest.fixture
def evidence() -> Evidence:
    """Tasks 1, 2, 3 measured the files a, b, c; task 2 ran twice, since its first worker was killed."""
    effects = Effects()
    killed, healthy = (effects.watch(Path(name)) for name in ("killed", "healthy"))
    run(effects, killed, "1", "a", at=1)
    killed.started["2"] = 2
    run(effects, healthy, "2", "b", at=4)
    run(effects, healthy, "3", "c", at=5)
    return Evidence(
        pushed={"1": "a", "2": "b", "3": "c"},
        counters={"completed": 3, "crashes": 1, "resurrections": 1},
        crashed={"2": 1},
        effects=effects,
        direct=dict(FACTS),
        deaths=[Death(1, cast("Worker", SimpleNamespace(effects=killed)), at=3, after=1)],
        kills_wanted=1,
    )


def run(effects: Effects, worker: WorkerEffects, task: str, file: str, at: float) -> None:
    worker.started[task] = at
    worker.done.add(task)
    effects.tasks_done.add(task)
    effects.measured[file] = FACTS[file]


def the_disagreement(evidence: Evidence) -> str:
    account: Account = draw_up(evidence)
    assert not account.agrees
    [disagreement] = account.disagreements
    return disagreement


def test_a_crash_explains_a_repeated_run(evidence: Evidence) -> None:
    account = draw_up(evidence)
    assert account.disagreements == []
    assert (account.pushed, account.runs, account.reruns, account.crashes, account.recoveries) == (3, 4, 1, 1, 1)
    assert evidence.deaths[0].recoveries(evidence.effects) == [1]


def test_a_wrong_result_is_found(evidence: Evidence) -> None:
    evidence.effects.measured["b"] = replace(FACTS["b"], lines=3)
    assert the_disagreement(evidence) == "1 files were measured differently by tasks and directly: b."


def test_errors_that_cancel_out_in_the_sum_are_found(evidence: Evidence) -> None:
    evidence.effects.measured["a"] = replace(FACTS["a"], lines=3)
    evidence.effects.measured["b"] = replace(FACTS["b"], lines=1)
    assert aggregate(evidence.effects.measured) == aggregate(evidence.direct)
    assert the_disagreement(evidence) == "2 files were measured differently by tasks and directly: a, b."


def test_two_runs_that_disagree_are_found(evidence: Evidence) -> None:
    evidence.effects.contradictions.add("b")
    assert the_disagreement(evidence) == "Two runs of a task disagree about: b."


def test_a_lost_task_is_found(evidence: Evidence) -> None:
    del evidence.effects.measured["c"]
    disagreements = draw_up(replace(evidence, counters={"completed": 2})).disagreements
    assert disagreements == [
        "3 tasks were pushed, but 2 ended.",
        "1 files were pushed, but not measured: c.",
    ]


def test_a_dead_letter_is_found(evidence: Evidence) -> None:
    wrong = replace(evidence, counters={"completed": 2, "dead": 1})
    assert the_disagreement(wrong) == "1 tasks are dead and 0 discarded; none should be."


def test_a_task_counted_twice_is_found(evidence: Evidence) -> None:
    assert the_disagreement(replace(evidence, counters={"completed": 4})) == "3 tasks were pushed, but 4 ended."


def test_a_second_run_without_a_crash_is_found(evidence: Evidence) -> None:
    evidence.effects.workers[1].started["1"] = 6  # its first run ended in the killed worker: no crash of it is known
    assert the_disagreement(evidence) == "1 tasks ran again although no crash explains it: a."


def test_a_second_run_after_one_in_a_healthy_worker_is_found(evidence: Evidence) -> None:
    evidence.effects.watch(Path("another")).started["3"] = 7
    wrong = replace(evidence, crashed={"2": 1, "3": 1})
    assert the_disagreement(wrong) == "1 tasks ran again although no crash explains it: c."


def test_a_task_that_never_ran_again_is_found(evidence: Evidence) -> None:
    del evidence.effects.workers[1].started["2"]
    assert the_disagreement(evidence) == "Not every task that 1 of the killed workers left behind ran again."


def test_a_kill_that_did_not_happen_is_found(evidence: Evidence) -> None:
    account = draw_up(replace(evidence, kills_wanted=2))
    assert (account.agrees, account.disagreements) == (False, [])
    console = Console(width=200, record=True, file=io.StringIO())
    demo = cast("Demo", SimpleNamespace(effects=evidence.effects, killer=SimpleNamespace(deaths=evidence.deaths)))
    Report(account, demo, seed=5, seconds=1.0).show(console)
    said = console.export_text()
    assert "All agree, but only 1 of 2 kills happened before so small a job was over: take more files (--limit)" in said
    assert "do not agree" not in said


# -- its parts --------------------------------------------------------------------------------------------------


def test_a_seed_chooses_the_same_kills_again() -> None:
    chosen = plans(seed=5, kills=3, files=1000, workers=2)
    assert chosen == plans(seed=5, kills=3, files=1000, workers=2) != plans(seed=6, kills=3, files=1000, workers=2)
    assert sorted(chosen, key=lambda plan: plan.after) == chosen
    assert all(0 < plan.after < 1000 and plan.place in (1, 2) for plan in chosen)


@pytest.mark.parametrize("bad", [b"def (:\n  'unended", b"\xff\xfe\x00", b"# coding: nonsense\n", b"if x:\n\t1\n  2\n"])
def test_a_file_that_does_not_parse_is_counted_as_far_as_possible(tmp_path: Path, bad: bytes) -> None:
    path = tmp_path / "bad.py"
    path.write_bytes(bad)
    facts = measure(path)
    assert not facts.parsed
    assert facts.size == len(bad)
    assert facts == measure(path)


def test_installed_packages_are_not_the_standard_library(tmp_path: Path) -> None:
    for name in ("a.py", "test/b.py", "site-packages/c.py", "dist-packages/d.py", "e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "gone.py").symlink_to("nowhere")
    assert library_files(tmp_path) == ["a.py", "test/b.py"]
    assert library_files(tmp_path, limit=1) == ["a.py"]


def test_a_line_that_a_kill_tore_is_not_read(tmp_path: Path) -> None:
    effects = Effects()
    worker = effects.watch(tmp_path / "log")
    writer = EffectWriter(worker.path)
    writer.booted()
    writer.started("1")
    with worker.path.open("ab") as log:
        log.write(b'{"what": "done", "ta')
    effects.read()
    effects.read()
    assert worker.pid == os.getpid()
    assert worker.running == {"1"}


def test_the_users_settings_do_not_reach_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in DISTURBING.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RELIER_REDIS_URL", "redis://somewhere:1/0")
    surroundings = Surroundings(tmp_path, tmp_path, 0)
    environment = surroundings.environment(tmp_path / "effects")
    assert surroundings.settings.redis_url == environment["RELIER_REDIS_URL"] == "redis://somewhere:1/0"
    assert surroundings.settings.namespace == environment["RELIER_NAMESPACE"] != "production"
    assert environment["RELIER_ACTORS"] == "relier_cli.demo.actors"
    assert not {"RELIER_HEARTBEAT_TTL", "RELIER_BROKER_URL", "RELIER_RESURRECTION_ENABLED"} & environment.keys()


def test_an_env_file_tells_the_demo_where_redis_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("RELIER_REDIS_URL=redis://somewhere:1/0\nRELIER_NAMESPACE=production\n")
    monkeypatch.chdir(tmp_path)
    settings = Surroundings(tmp_path, tmp_path, 0).settings
    assert settings.redis_url == "redis://somewhere:1/0"
    assert settings.namespace != "production"
