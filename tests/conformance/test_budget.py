"""What a task costs: round trips, heartbeats, bytes that stay."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from importlib import resources
from typing import Any

from relier.beating import SETTLE_INTERVAL
from relier.envelope import stamp_of
from relier.sending import sending_of
from relier.store import SHARDS, Verdict
from relier.store.scripts import script
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import FOREIGN, where
from tests.integration.harness import Harness
from tests.waiting import wait_until

#: A server's monitor shows the calls of that server alone.
WATCHED_AT_ONE_SERVER = (*FOREIGN, "cluster")


class Calls:
    """Counts script calls by digest, as the server's monitor shows them."""

    def __init__(self, fleet: Harness) -> None:
        self._before = self._read(fleet)
        self._fleet = fleet

    @staticmethod
    def _read(fleet: Harness) -> int:
        told = b"".join(fleet.store.runner.everywhere("INFO", "commandstats"))
        return sum(map(int, re.findall(rb"cmdstat_eval(?:sha)?:calls=(\d+)", told)))

    def made(self) -> int:
        return self._read(self._fleet) - self._before


@where(never=WATCHED_AT_ONE_SERVER)
def test_a_task_costs_two_calls_of_the_store(fleet: Harness) -> None:
    """Claim and commit. Fetches, acknowledgements and settlements are shared by many tasks."""
    _assert_two_calls(fleet, fleet.actors.quick, 2000)


@where(never=WATCHED_AT_ONE_SERVER)
def test_a_task_with_every_protection_costs_two_calls_of_the_store(fleets: Fleets) -> None:
    """Signed, admitted, idempotent, limited, of a later version, its result kept."""
    fleet = fleets(signing_keys="k1:secret")
    _assert_two_calls(fleet, fleet.actors.protected, 800)


@where(("embedded",), never=WATCHED_AT_ONE_SERVER)
def test_a_task_with_a_job_key_costs_its_worker_two_calls_of_the_store(fleet: Harness) -> None:
    _assert_two_calls(fleet, fleet.actors.newest, 800)


@where(("embedded",), never=WATCHED_AT_ONE_SERVER)
def test_a_task_with_a_job_key_costs_one_call_at_its_push(fleet: Harness) -> None:
    """Beside its publication."""
    with fleet.server.client(socket_timeout=100) as client, client.monitor() as monitor:
        fleet.actors.newest.push("a")
        fleet.actors.newest.push_many(fleet.actors.newest.message(f"job {i}") for i in range(50))
        fleet.store.client.echo("that is all")
        commands = [command["command"].split(" ", 2) for command in _until(monitor.listen(), "that is all")]
    scripts = [words[1] for words in commands if words[0].upper() == "EVALSHA"]
    assert scripts.count(script("push").sha) == 51
    assert len(scripts) <= 2 * 51 + 2, "each is taken and published, besides what admission asks"


def _until(monitored: Iterator[dict[str, Any]], last: str) -> Iterator[dict[str, Any]]:
    """Return the commands of clients until one that says so."""
    for command in monitored:
        if last in command["command"]:
            return
        if command["client_type"] != "lua":
            yield command


def _assert_two_calls(fleet: Harness, actor: Any, tasks: int) -> None:
    fleet.broker.enqueue_many([actor.message(i) for i in range(tasks)])
    with fleet.server.client(socket_timeout=100) as client, client.monitor() as monitor:
        start = time.monotonic()
        fleet.worker(threads=8)
        counted = _commands(monitor.listen(), until=tasks)
    # Settlements go out together, a call for each shard; so do looks at what is due. Beats have their own pace.
    times = (time.monotonic() - start) / SETTLE_INTERVAL + 2
    assert counted.pop("claim") == counted.pop("commit") == tasks
    assert counted.pop("exchange", 0) < tasks
    assert counted.pop("other commands", 0) < tasks
    assert counted.pop("fleet_beat") <= times
    assert all(count <= SHARDS * times for count in counted.values()), counted
    fleet.settle(tasks)


def _commands(monitored: Iterator[dict[str, Any]], until: int) -> dict[str, int]:
    """Count the scripts that are called, by name, and other commands, until so many commits were seen."""
    packages = ("relier.store", "relier.brokers")
    files = [(package, file.name) for package in packages for file in (resources.files(package) / "lua").iterdir()]
    names = {script(name[:-4], package).sha: name[:-4] for package, name in files if name.endswith(".lua")}
    counted: dict[str, int] = {}
    for command in monitored:
        if command["client_type"] == "lua":
            continue
        words = command["command"].split(" ", 2)
        what = names[words[1]] if words[0].upper() == "EVALSHA" else "other commands"
        counted[what] = counted.get(what, 0) + 1
        if counted.get("commit", 0) >= until:
            break
    return counted


@where(("embedded",), never=WATCHED_AT_ONE_SERVER)
def test_a_heartbeat_costs_the_same_however_many_tasks_run(fleet: Harness) -> None:
    worker = fleet.worker(threads=40)
    worker.wait_settled_in()
    idle = _calls_of_three_beats(fleet, worker.identity)
    for _ in range(40):
        fleet.actors.gated.push(fleet.gate())
    fleet.wait(lambda: len(fleet.effects("began")) == 40, what="forty running tasks")

    busy = _calls_of_three_beats(fleet, worker.identity)

    # Reconciliation, once in ten seconds, takes a call for each of 64 shards, whether idle or not.
    assert busy - idle < 3 * 40, (idle, busy)
    fleet.open_gate()
    fleet.settle(40)


def _calls_of_three_beats(fleet: Harness, worker: str) -> int:
    """Count script calls during three beats."""

    def beats() -> int:
        return int(fleet.store.runner.command("HGET", fleet.store.keys.fleet[1], worker) or 0)

    start = beats()
    wait_until(lambda: beats() > start, 60, "a beat")
    calls, start = Calls(fleet), beats()
    wait_until(lambda: beats() >= start + 3, 60, "three beats")
    return calls.made()


@where(("embedded", "redis"), never=WATCHED_AT_ONE_SERVER)
def test_a_running_task_takes_little_beside_its_payload(fleet: Harness) -> None:
    tasks = 200
    idle = _bytes_of_the_store(fleet)
    for i in range(tasks):
        message = fleet.actors.quick.message(i)
        sending = sending_of(fleet.broker, message, stamp_of(message), fleet.settings)
        claim = fleet.store.tasks.claim("host:12345:0a1b2c3d", sending, b"12345678", 0, slot_free=False)
        assert claim.verdict is Verdict.GRANTED

    running = list(fleet.store.scan())
    payload = sum(len(record.body) for record in running)
    per_task = (_bytes_of_the_store(fleet) - idle - payload) / tasks
    # Every shard's own keys cost as much as if they were used by many tasks.
    keys = 3 * 64 * 100
    assert len(running) == tasks
    assert per_task <= 400 + keys / tasks, per_task


def _bytes_of_the_store(fleet: Harness) -> int:
    client: Any = fleet.store.client
    return sum(int(client.memory_usage(key, samples=0) or 0) for key in client.scan_iter("rl:*"))


@where(("embedded",), never=(*FOREIGN, "cluster", "two-redises", "rabbitmq", "quorum"))
def test_ended_tasks_leave_nothing(fleet: Harness) -> None:
    """Where the removal of a message is confirmed; else the task's id is kept for a while."""
    tasks = 10_000
    fleet.worker(threads=8)
    fleet.settle(0)
    fleet.broker.enqueue_many([fleet.actors.quick.message(i) for i in range(tasks)])

    counters = fleet.settle(tasks, 100)

    assert counters["completed"] == tasks
    fleet.wait(lambda: fleet.store.live()["records"] == 0, 60, "an empty store")
    assert fleet.store.live() == {"records": 0, "due": 0, "dead_letters": 0, "remembered": 0}
    left = {key.decode() for key in fleet.store.client.scan_iter("rl:*")}
    own = (":meta", ":adm", ":adm.at", ":st")
    assert {key for key in left - set(fleet.store.keys.fleet) if not key.endswith(own) and ":st:" not in key} == set()
