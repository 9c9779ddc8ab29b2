"""`rl chaos` on real workers: its verdict is that of the system, also when that is broken."""

from __future__ import annotations

import json
import sys
from typing import Any

from tests import schemas, spawn
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import where
from tests.integration.harness import Harness, Process

#: Time (s) for an experiment on a busy machine.
PATIENCE = 150.0


def chaos(fleet: Harness, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run an experiment beside the fleet; returns its exit code and what it printed."""
    words = ["chaos", *arguments, "--yes", "--json"]
    command = [sys.executable, "-m", "relier_cli.app", *words]
    done = spawn.run(command, env=fleet.environment(), cwd=fleet.folder, timeout=PATIENCE)
    assert done.stdout, done.stderr
    schemas.check_output(words, done.stdout)
    return done.returncode, json.loads(done.stdout)


@where()
def test_a_worker_kills_itself_and_its_tasks_run_elsewhere(fleets: Fleets) -> None:
    fleet = fleets(chaos_enabled="true", heartbeat_ttl=2)
    workers = settled_in(fleet)
    mine = fleet.actors.gated.push(fleet.gate())
    fleet.wait(lambda: fleet.effects("began", mine.id), what="a task of the user's")
    victim = fleet.process_of(fleet.effects("began", mine.id)[0].pid)
    name = victim.identity

    code, told = chaos(fleet, "worker-kill", name, "--within", "60")

    assert (code, told["held"]) == (0, True), (told, fleet.report())
    fleet.wait(lambda: victim.is_over, what="its end")
    (survivor,) = (worker.identity for worker in workers if worker is not victim)
    probes = [task for task in told["tasks"] if task["probe"]]
    assert probes
    assert {(task["again_on"], task["end"]) for task in probes} == {(survivor, "completed")}
    (users,) = (task for task in told["tasks"] if task["id"] == mine.id)
    assert (users["again_on"], users["end"]) == (survivor, None)
    fleet.open_gate()
    fleet.wait(lambda: fleet.counted("ran")[mine.id], what="its end")


def settled_in(fleet: Harness, count: int = 2) -> list[Process]:
    """Return workers that have looked at each other."""
    workers = fleet.workers(count)
    for worker in workers:
        worker.wait_settled_in()
    return workers


@where()
def test_a_worker_loses_its_network_and_is_refused_when_it_is_back(fleets: Fleets) -> None:
    fleet = fleets(chaos_enabled="true", heartbeat_ttl=2)
    workers = settled_in(fleet)
    pids = {worker.pid for worker in workers}

    code, told = chaos(fleet, "network-partition", "--seconds", "2", "--seed", "3")

    assert (code, told["held"]) == (0, True), (told, fleet.report())
    assert told["tasks"]
    assert all(task["again_on"] != told["worker"] and task["end"] == "completed" for task in told["tasks"])
    assert told["back_after"] >= 2
    assert told["back_as"] != told["worker"]
    assert {int(about["pid"]) for about in fleet.store.fleet.workers().values()} == pids
    assert all(not worker.is_over for worker in workers)


@where(usual=("rabbitmq",), never=("embedded", "redis", "plain-redis", "sqlite"))
def test_a_worker_without_its_broker_ends_what_it_runs_alone(fleets: Fleets) -> None:
    fleet = fleets(chaos_enabled="true", heartbeat_ttl=2)
    settled_in(fleet)

    code, told = chaos(fleet, "network-partition", "--from", "broker", "--seconds", "3")

    assert (code, told["held"]) == (0, True), (told, fleet.report())
    assert {(task["again_on"], task["end"], task["spared"]) for task in told["tasks"]} == {(None, "completed", True)}
    assert told["declared_dead_after"] is None
    assert told["back_as"] == told["worker"]


@where(usual=("embedded",))
def test_where_nobody_puts_tasks_back_the_verdict_says_so(fleets: Fleets) -> None:
    fleet = fleets(chaos_enabled="true", heartbeat_ttl=2, resurrection_enabled="false")
    settled_in(fleet)

    for experiment in (["network-partition", "--seconds", "4"], ["worker-kill", "--seed", "1"]):
        code, told = chaos(fleet, *experiment, "--within", "3")
        assert (code, told["held"]) == (1, False)
        assert "did not run again within 3 s" in told["verdict"]
        assert told["declared_dead_after"] is None
