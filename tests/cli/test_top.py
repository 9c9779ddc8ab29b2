"""`rl top`: one picture for programs, one after the other on a terminal, whatever becomes of Redis."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from relier.store import Store
from relier.store.objective import Objective
from relier_cli.view import COUNTED
from tests import processes, spawn
from tests.cli.conftest import CommandLine, Tasks
from tests.cli.populated import Populated
from tests.conftest import PrivateServers
from tests.servers import RedisServer
from tests.waiting import wait_until

ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture(params=["embedded"])
def server(request: pytest.FixtureRequest) -> RedisServer:
    """One kind of server will do: what the command asks of it has tests of its own."""
    return request.getfixturevalue("servers").store(request.param)  # type: ignore[no-any-return]


#: What is counted of the actor in a populated store.
WORKED = {"completed": 1, "failed": 2, "dead": 2, "discarded": 1}


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, folder: Path, *line: str, lines: int = 60, **variables: str | None) -> None:
        self._ours, theirs = os.openpty()
        size = {"COLUMNS": "200", "LINES": str(lines), "TERM": "xterm-256color"}
        with os.fdopen(theirs, "wb") as terminal:
            self.process = spawn.start(
                [sys.executable, "-m", "relier_cli.app", *line],
                env={**processes.environment(**variables), **size},
                cwd=folder,
                stdout=terminal,
                stderr=terminal,
                start_new_session=True,
            )
        os.set_blocking(self._ours, False)
        self._shown = b""
        #: All that it got, known after its end.
        self.shown_at_last = ""

    def shown(self) -> str:
        """Return all that it got so far, without what moves the cursor."""
        try:
            while read := os.read(self._ours, 65_536):
                self._shown += read
        except OSError:  # Nothing more at the moment, or the other end is closed.
            pass
        return ESCAPES.sub(b"", self._shown).decode("utf-8", "replace")

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        wait_until(lambda: (self.shown(), self.process.poll() is not None)[1], 30, "its end")
        self.shown_at_last = self.shown()
        os.close(self._ours)
        return self.process.wait(1)


def test_one_picture_tells_workers_queues_tasks_and_burn_rates(rl: CommandLine, tasks: Tasks) -> None:
    told = {"role": "worker", "host": "here", "pid": 1, "queues": ["default"], "started_at": 1.0}
    tasks.store.fleet.register(tasks.worker, told, objectives={"work": Objective(0.9, 5.0)})
    populated = Populated(rl, tasks)
    data = rl.json("top")

    (worker,) = data["workers"]
    assert (worker["id"], worker["state"], worker["tasks"]) == ("w1", "silent", 1)
    assert [task["id"] for task in data["running"]["longest"]] == [populated.names["running"]]
    queues = {queue["name"]: queue for queue in data["queues"]}
    assert (queues["default"]["due"], queues["default"]["scheduled"]) == (1, 1)
    actors = {actor["actor"]: actor for actor in data["actors"]}
    assert actors["work"]["last_5_minutes"] == {**dict.fromkeys(COUNTED, 0), **WORKED}
    states = {(o["actor"], o["objective"]): o["state"] for o in data["objectives"]}
    assert states == {("work", "success"): "burning", ("work", "latency"): "ok", ("(refused)", "success"): "burning"}
    assert (data["dead_letters"], data["last_5_minutes"]["dead"], data["trouble"]) == (3, 3, None)
    assert {event["event"] for event in data["events"]} >= {"dead", "discarded"}


def test_nothing_of_a_tasks_arguments_or_errors_is_told(rl: CommandLine, tasks: Tasks) -> None:
    tasks.dead("s3cr3t", error=ValueError("s3cr3t"))
    tasks.running("s3cr3t")
    tasks.refused("s3cr3t", "s3cr3t")
    for options in ((), ("--json",)):
        assert "s3cr3t" not in rl("top", *options).stdout


def test_what_is_no_terminal_gets_one_picture(rl: CommandLine, tasks: Tasks) -> None:
    Populated(rl, tasks)
    lines = rl("top", "--interval", "0.2").stdout.splitlines()
    assert "dead letters 3; in 5 minutes: completed 1, failed 2, dead 3, discarded 1" in lines[1]
    headers = [line.split()[0] for line in lines if line.isupper() or line.startswith(("ACTOR", "QUEUE"))]
    assert {"ACTOR", "QUEUE", "WORKERS"} <= set(headers)
    assert lines.count("QUEUES") == 1


def test_a_terminal_is_painted_anew_until_ctrl_c_and_fits(rl: CommandLine, tasks: Tasks) -> None:
    for _ in range(40):
        tasks.running()
    terminal = Terminal(rl.folder, "top", "--interval", "0.2", lines=30, redis_url=rl.url)
    wait_until(lambda: terminal.shown().count("RUNNING (40") >= 2, 60, "two pictures")
    new = tasks.dead()
    wait_until(lambda: new.task_id in terminal.shown(), 60, "what happened meanwhile")
    assert terminal.end(signal.SIGINT) == 0
    assert "Traceback" not in terminal.shown_at_last
    assert re.search(r"more", terminal.shown_at_last)


def test_a_redis_that_goes_away_is_said_and_waited_for(tmp_path: Path, private_server: PrivateServers) -> None:
    server = private_server("redis")
    terminal = Terminal(tmp_path, "top", "--interval", "0.2", redis_url=server.url)
    wait_until(lambda: "ACTORS" in terminal.shown(), 60, "a picture")
    server.kill()
    wait_until(lambda: "Relier cannot reach Redis" in terminal.shown(), 60, "what is wrong")
    pictures = terminal.shown().count("WORKERS")
    server.restart()
    wait_until(lambda: terminal.shown().count("WORKERS") > pictures, 60, "a picture again")
    assert terminal.end(signal.SIGTERM) == 0


def test_a_picture_of_an_empty_store_has_every_part(rl: CommandLine, store: Store) -> None:
    data: Any = rl.json("top")
    assert (data["actors"], data["workers"], data["dead_letters"]) == ([], [], 0)
    assert {queue["name"] for queue in data["queues"]} == {"high_priority", "default", "low_priority"}
    assert "RUNNING (none)" in rl("top").stdout
