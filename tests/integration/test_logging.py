"""What workers log under Dramatiq's own command line: a task's lines say whose they are, and none has an argument."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.conftest import Fleets
from tests.integration.harness import Harness
from tests.integration.logging_actors import LoggingActors
from tests.servers import RedisServer

SECRET = "hunter" + "2hunter"
ACTORS = "tests.integration.worker_actors,tests.integration.logging_worker"

#: The actor and what it logs.
LINES = {
    "plain": "says",
    "library": "says",
    "structured": "says",
    "thread": "says",
    "async before": "asays",
    "async after": "asays",
    "to_thread": "asays",
    "beside": "asays",
    "complaint": "complains",
}


def lines_of(text: str) -> list[dict[str, Any]]:
    """Return the worker's lines; those of Dramatiq's main process, in which nothing of Relier runs, are its own."""
    others = [line for line in text.splitlines() if not line.startswith("{")]
    assert [line for line in others if "[dramatiq.MainProcess]" not in line and not _is_traceback(line)] == []
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def _is_traceback(line: str) -> bool:
    return not line.strip()


def run_all(fleet: Harness, **options: Any) -> list[dict[str, Any]]:
    """Run each actor twice, in one worker with one thread, at the lowest level; returns what it logged."""
    actors = LoggingActors(fleet.broker)
    worker = fleet.worker(threads=1, actors=ACTORS, log_level="debug", **options)
    for _ in range(2):
        for actor in (actors.says, actors.asays, actors.complains):
            actor.push(SECRET)
    fleet.wait(lambda: sum(fleet.store.counters().get(name, 0) for name in ("completed", "dead")) == 6, what="six ends")
    worker.stop()
    assert SECRET not in worker.text()
    return lines_of(worker.text())


def check(lines: list[dict[str, Any]], actors: dict[str, str]) -> None:
    for event, actor in actors.items():
        mine = [line for line in lines if line["event"] == event]
        assert len(mine) == (4 if event == "complaint" else 2), event
        assert {line["actor"] for line in mine} == {actor}
        assert len({line["task"] for line in mine}) == 2
        assert len({line["fence"] for line in mine}) == len(mine)
        assert all(line["worker"].count(":") == 2 and line["level"] in ("info", "warning") for line in mine)
        assert all(line["attempt"] in ((0, 1) if event == "complaint" else (0,)) for line in mine)


pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


def test_every_line_of_a_task_says_whose_it_is(fleet: Harness) -> None:
    lines = run_all(fleet)
    check(lines, LINES)
    assert {line.get("order") for line in lines if line["event"] == "structured"} == {17}
    assert [line for line in lines if line["event"] == "Received its arguments."]
    # Of Dramatiq's own: the one that says that a task failed; and none of those that belong to no task.
    failed = [line for line in lines if line["event"].startswith("Failed to process message complains[")]
    assert len(failed) == 4
    assert all(line["task"] in line["event"] and "ValueError: 13" in line["exception"] for line in failed)
    # What a thread logs between tasks belongs to none.
    idle = [line for line in lines if line["event"] in ("Shutting down...", "Draining: no task is started any more.")]
    assert idle and all("fence" not in line for line in idle)


def test_no_argument_is_logged_beside_rabbitmq(fleets: Fleets, server: RedisServer, store_url: str, vhost: str) -> None:
    check(run_all(fleets(server, broker_url=vhost)), LINES)
