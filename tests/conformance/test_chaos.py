"""`rl chaos` on real workers: its verdict is that of the system, also when that is broken."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from relier.store.survey import Survey
from tests import guard, schemas, spawn
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import where
from tests.integration.harness import Harness, Process

#: Time (s) for an experiment on a busy machine.
PATIENCE = 150.0


def chaos(fleet: Harness, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run an experiment beside the fleet; returns its exit code and what it printed."""
    yes = ["--yes"] * (arguments[0] not in ("task-corrupt", "verify"))
    words = ["chaos", *arguments, *yes, "--json"]
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
    """Return workers that have looked at each other; they take part whatever queues they were told to consume."""
    workers = fleet.workers(count, queues=("default",))
    for worker in workers:
        worker.wait_settled_in()
    return workers


@where(usual=("embedded",))
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


@where(usual=("rabbitmq",), never=("embedded", "redis", "sentinel", "cluster", "plain-redis", "sqlite"))
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


@where(usual=("embedded",))
def test_a_worker_that_does_not_allow_it_ignores_what_it_is_asked_for(fleets: Fleets) -> None:
    fleet = fleets()
    worker = fleet.worker(threads=1)
    worker.wait_settled_in()

    for what in ("kill", "partition"):
        assert fleet.store.fleet.order(worker.identity, {"type": "chaos", "what": what, "seconds": 60})

    fleet.wait(lambda: worker.text().count("Ignored a control message of an unknown type.") == 2, what="two lines")
    done = fleet.actors.quick.push(1)
    fleet.wait(lambda: fleet.counted("ran")[done.id], what="a task")
    assert "relier.chaos" not in fleet.store.fleet.workers()[worker.identity]["queues"]


@where(usual=("embedded",))
def test_an_interrupted_experiment_leaves_nothing_behind(fleets: Fleets) -> None:
    fleet = fleets(chaos_enabled="true", heartbeat_ttl=60, resurrection_enabled="false")
    settled_in(fleet)
    command = [sys.executable, "-m", "relier_cli.app", "chaos", "worker-kill", "--watch", "--yes"]
    with (fleet.folder / "log").open("wb") as log:
        process = spawn.start(command, env=fleet.environment(), cwd=fleet.folder, stdout=log, stderr=log)
    guard.watch(process.pid)
    fleet.wait(lambda: b"is silent" in (fleet.folder / "log").read_bytes(), what="the death")

    process.send_signal(signal.SIGINT)

    assert process.wait(PATIENCE) == 130, (fleet.folder / "log").read_text()
    guard.forget(process.pid)
    with fleet.server.client() as client:
        assert client.keys("*chaos:*") == []
    # Nobody puts back what the dead worker had; it ends as discarded once somebody does.
    assert {(task.state, task.reason) for task in Survey(fleet.store).all() if not task.ended} == {
        ("r", "cancel asked")
    }


@where(usual=("embedded",), never=("plain-rabbitmq",))  # There undecodable bytes stay in the broker's own queue.
def test_load_corrupt_messages_and_slow_tasks_end_as_documented(fleets: Fleets) -> None:
    fleet = fleets(chaos_enabled="true", heartbeat_ttl=1)
    settled_in(fleet)

    _, spike = chaos(fleet, "load-spike", "--tasks", "300")
    assert (spike["held"], spike["pushed"], spike["completed"]) == (True, 300, 300), spike
    _, kept = chaos(fleet, "task-corrupt", "--how", "seal")
    assert (kept["held"], kept["reason"], kept["sound_completed"]) == (True, "PayloadIntegrityError", kept["sound"]), (
        kept
    )
    _, removed = chaos(fleet, "task-corrupt", "--how", "bytes", "--remove")
    assert (removed["held"], removed["removed"]) == (True, True), removed
    assert fleet.dead_ones() == ["PayloadIntegrityError"]
    for how in ("hard-timeout", "time-limit", "heartbeat", "interpreter"):
        _, slow = chaos(fleet, "slow-task", "--how", how, "--remove")
        assert (slow["held"], slow["runs"], slow["resurrection_count"]) == (True, 1, 0), (slow, fleet.report())
    code, all_ = chaos(fleet, "verify")
    assert (code, all_["adds_up"], all_["dead_letters"]) == (0, True, 1), all_

    # Workers without a key run what was changed: that is documented, and what the experiment is to find.
    fleet.environ["RELIER_SIGNING_KEYS"] = "a:" + 32 * "x"
    code, told = chaos(fleet, "task-corrupt", "--within", "2")
    assert (code, told["sound_completed"]) == (1, told["sound"] + 1), told


@where(usual=("embedded",))
def test_a_worker_that_does_nothing_is_no_success(fleets: Fleets) -> None:
    fleet = fleets(chaos_enabled="true", heartbeat_ttl=60)
    (worker,) = settled_in(fleet, 1)
    worker.signal(signal.SIGSTOP)

    findings = [
        chaos(fleet, *words, "--within", "1")
        for words in (["load-spike", "--tasks", "5"], ["task-corrupt"], ["slow-task"])
    ]

    worker.signal(signal.SIGCONT)
    assert [code for code, _ in findings] == [1, 1, 1]
    assert [told["findings"][0] for _, told in findings] == [
        "5 tasks did not end within 1 s.",
        "There is no dead letter of it within 1 s.",
        "It did not end within 1 s.",
    ]


@where(usual=("embedded",))
def test_what_is_lost_or_not_put_back_is_found(fleets: Fleets) -> None:
    fleet = fleets(chaos_enabled="true", heartbeat_ttl=1, resurrection_enabled="false")
    (worker,) = settled_in(fleet, 1)
    task = fleet.actors.gated.push(fleet.gate())
    fleet.wait(lambda: fleet.effects("began", task.id), what="a running task")
    name = worker.identity
    worker.kill()
    fleet.wait(lambda: not fleet.store.fleet.present([name])[name], what="silence")

    code, told = chaos(fleet, "verify", "--within", "0")
    assert (code, told["silent"], told["adds_up"]) == (1, [name], True)

    fleet.store.runner.command("HDEL", fleet.store.keys.shard(task.shard, "")[0], task.id)
    code, told = chaos(fleet, "verify", "--within", "0")
    assert (code, told["adds_up"]) == (1, False)
