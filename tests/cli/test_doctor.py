from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from relier.holds import park_actor, pause_queue
from relier.store import Parking, Store
from tests.cli.conftest import CommandLine, Tasks
from tests.conftest import PrivateServers
from tests.processes import actors, run
from tests.processes import rl as run_rl


def by_name(report: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {finding["name"]: finding for finding in report["findings"]}


def register(store: Store, worker: str, role: str = "worker", *queues: str) -> None:
    store.fleet.register(worker, {"role": role, "host": "here", "pid": 1, "queues": list(queues)})


def test_a_well_kept_installation_passes(rl: CommandLine, store: Store) -> None:
    register(store, "w1", "worker", "default", "low_priority")
    register(store, "w2", "worker", "default")
    register(store, "r1", "resurrector", "relier.resurrector.1")
    store.fleet.format(1, 64)

    done = rl("doctor", "--json")

    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True)
    assert {finding["level"] for finding in report["findings"]} == {"ok"}
    found = {name: finding["message"] for name, finding in by_name(report).items()}
    assert found["workers"] == "2 workers alive; consumers by queue: default: 2, low_priority: 1."
    assert found["resurrector"] == "1 resurrector alive."
    assert found["format"] == "The store has format 1 in 64 shards."
    assert {"reachability", "eviction policy", "persistence", "version", "clock", "server", "queues"} < set(found)


def test_an_empty_installation_is_told_what_is_missing(rl: CommandLine) -> None:
    done = rl("doctor")
    assert done.returncode == 0
    assert "warning  workers: No worker is alive." in done.stdout
    assert "fix: Start one: dramatiq relier.workers" in done.stdout
    assert done.stdout.endswith("12 ok, 1 warning, 0 error\n")


def test_a_store_of_another_format_is_an_error(rl: CommandLine, store: Store) -> None:
    store.fleet.format(2, 64)
    done = rl("doctor", "--json")
    finding = by_name(json.loads(done.stdout))["format"]
    assert done.returncode == 1
    assert finding["level"] == "error"
    assert "has format 2 in 64 shards" in finding["message"]
    assert "RELIER_NAMESPACE" in finding["fix"]


def test_doctor_itself_records_nothing(rl: CommandLine, store: Store) -> None:
    rl("doctor")
    assert store.client.keys("*") == []


def test_workers_that_do_not_sweep_are_an_error(rl: CommandLine, store: Store) -> None:
    register(store, "w1", "worker", "default")
    done = rl("doctor", "--json")
    assert done.returncode == 1
    assert by_name(json.loads(done.stdout))["resurrector"]["fix"].startswith("Start rl run-resurrector")

    store.fleet.lease([("watch", "", "w|w1|1")])
    assert by_name(rl.json("doctor"))["resurrector"]["message"] == "None is alive: the workers sweep by themselves."


def test_resurrection_switched_off_is_an_error(rl: CommandLine) -> None:
    done = rl("doctor", resurrection_enabled="false")
    assert done.returncode == 1
    assert "error    resurrector: RELIER_RESURRECTION_ENABLED is false" in done.stdout


def test_queues_that_nobody_consumes_are_named(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    tasks.scheduled(queue="reports")
    name = actors(rl.folder)
    findings = rl.json("doctor", actors=name)["findings"]

    queues = [(f["level"], f["message"]) for f in findings if f["name"] == "queues"]
    assert queues == [
        ("warning", "Nobody consumes the queue 'low_priority' (it has actors)."),
        ("warning", "Nobody consumes the queue 'reports' (1 task held in the store)."),
    ]


def test_what_is_held_is_named(rl: CommandLine, store: Store) -> None:
    pause_queue(store, "default", "me", "the provider is down")
    park_actor(store, "work", "a worker")
    found = [f for f in rl.json("doctor")["findings"] if f["name"] == "holds"]
    assert [f["level"] for f in found] == ["warning", "warning"]
    assert found[0]["message"].startswith("The queue 'default' is paused since 20")
    assert found[0]["message"].endswith("Z by me (the provider is down).")
    assert [f["fix"].rpartition("rl ")[2] for f in found] == ["queue resume default", "queue resume --actor work"]


def test_actors_and_versions_that_no_worker_has_and_a_missing_recovery_pool_are_named(
    rl: CommandLine, store: Store, tasks: Tasks
) -> None:
    register(store, "w1", "worker", "default")
    tasks.scheduled(0.0)
    tasks.scheduled(0.0, payload_version=3)
    for due in store.tasks.due(range(64), 10)[1]:
        reason = "newer version" if due.payload_version == 3 else "unknown actor"
        store.tasks.park([(due, Parking(reason, 60.0, b"failure"))], 600.0)

    findings = rl.json("doctor", recovery_queue="re-queue")["findings"]

    assert [(f["level"], f["message"]) for f in findings if f["name"] == "queues"] == [
        ("warning", "No worker has the actor 'work' (1 task held in the store)."),
        ("warning", "No worker knows version 3 of 'work' (1 task held in the store)."),
        ("warning", "Nobody consumes the recovery queue 're-queue': what crashed goes to its own queue."),
    ]


def test_messages_in_a_queue_that_nobody_consumes_are_counted(rl: CommandLine) -> None:
    name = actors(rl.folder)
    (rl.folder / "push.py").write_text(f"import {name}\nfor _ in range(3): {name}.low.push()\n")
    assert run(rl.folder, "push", redis_url=rl.url).returncode == 0

    messages = [f["message"] for f in rl.json("doctor")["findings"] if f["name"] == "queues"]
    assert messages == ["Nobody consumes the queue 'low_priority' (3 messages)."]


def test_an_actor_module_that_breaks_is_an_error(rl: CommandLine) -> None:
    actors(rl.folder, "1 / 0", "broken")
    done = rl("doctor", "--json", actors="broken")
    finding = by_name(json.loads(done.stdout))["actors"]
    assert done.returncode == 1
    assert finding["message"] == "The actor module 'broken' cannot be imported: ZeroDivisionError: division by zero"


def test_an_unknown_variable_is_a_warning(rl: CommandLine) -> None:
    finding = by_name(rl.json("doctor", heartbeat_tll="3"))["settings"]
    assert finding["level"] == "warning"
    assert "did you mean RELIER_HEARTBEAT_TTL?" in finding["message"]


def test_every_trouble_exits_1_with_its_fix_and_no_secret(tmp_path: Path, private_server: PrivateServers) -> None:
    evicting = private_server(maxmemory_policy="allkeys-lru").url
    for variables, name in (
        ({"redis_url": "redis://:s3cr3t@127.0.0.1:1/0"}, "reachability"),
        ({"redis_url": "redis://:s3cr3t@127.0.0.1:port/0"}, "settings"),
        ({"redis_url": evicting}, "eviction policy"),
        ({"state_dir": "/proc/relier"}, "server"),
    ):
        done = run_rl(tmp_path, "doctor", "--json", **variables)
        report = json.loads(done.stdout)
        finding = by_name(report)[name]
        assert (done.returncode, report["ok"], finding["level"]) == (1, False, "error")
        assert finding["fix"] or "RELIER_STATE_DIR" in finding["message"]
        assert "s3cr3t" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


def test_an_embedded_server_is_told_apart(tmp_path: Path) -> None:
    done = run_rl(tmp_path, "doctor", state_dir=str(tmp_path / "state"))
    assert done.returncode == 0
    assert "The embedded server is used" in done.stdout


PLAIN = """
import dramatiq, relier
from dramatiq.brokers.{module} import {name}

dramatiq.set_broker(relier.install({name}(url={url!r})))

@dramatiq.actor
def nothing(): pass
"""


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_a_broker_of_others_gets_a_line_for_each_weaker_promise(rl: CommandLine) -> None:
    name = actors(rl.folder, PLAIN.format(module="redis", name="RedisBroker", url=rl.url))
    report = rl.json("doctor", actors=name)

    found = [f for f in report["findings"] if f["name"].startswith("broker")]
    assert report["ok"]
    assert found[0]["level"] == "ok"
    assert found[0]["message"].endswith("dramatiq: tasks are protected from their first claim on.")
    assert {f["level"] for f in found[1:]} == {"warning"}
    assert all(f["message"] and f["fix"] for f in found[1:])
    names = [f["name"].removeprefix("broker, ") for f in found[1:]]
    assert names == [
        *("fetched", "cuts", "delays", "undecodable", "out of memory", "clocks"),
        *("cut off", "late copies", "spread", "backlog"),
    ]


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_workers_of_another_broker_are_told_of(rl: CommandLine, store: Store) -> None:
    told = {"role": "worker", "host": "here", "pid": 1, "queues": ["default"], "broker": {"family": "some.Broker"}}
    store.fleet.register("w1", told)
    assert not [f for f in rl.json("doctor")["findings"] if "another broker" in f["message"]]  # It is not alive.

    with store.client.pubsub() as subscription:
        subscription.subscribe(store.keys.control("w1"))
        assert subscription.get_message(timeout=60)
        findings = rl.json("doctor")["findings"]

    (finding,) = [f for f in findings if "another broker" in f["message"]]
    assert finding["level"] == "warning"
    assert finding["message"].startswith("The workers use another broker (some.Broker) than what this command knows")
    assert "RELIER_ACTORS" in finding["fix"]
