"""A paused queue: none of its tasks is started, all are there when it is resumed, and everything else goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relier.brokers.adapters import adapter_of
from relier.gate import FRESH
from relier.holds import lift_actor, park_actor, pause_queue, resume_queue
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import FOREIGN, where
from tests.integration import urgent_actors
from tests.integration.harness import Harness, Process, ids


def pause(fleet: Harness, queue: str = "default") -> None:
    assert pause_queue(fleet.store, queue, "a test", "because")[0]
    everybody_knows(fleet)


def resume(fleet: Harness, queue: str = "default") -> None:
    assert resume_queue(fleet.store, queue)[0]


def everybody_knows(fleet: Harness) -> None:
    """Wait until each process has beaten twice: the second beat began after now, and its answer tells what is held."""
    before = fleet.store.fleet.observe().beats
    fleet.wait(
        lambda: all(
            fleet.store.fleet.observe().beats.get(worker, beat + 2) >= beat + 2 for worker, beat in before.items()
        ),
        what="two beats of everybody",
    )


def rl(fleet: Harness, *arguments: str, failpoints: str = "") -> subprocess.CompletedProcess[str]:
    """Run `rl` beside the fleet."""
    command = [sys.executable, "-m", "relier_cli.app", *arguments]
    environ = fleet.environment(failpoints)
    return subprocess.run(command, env=environ, cwd=fleet.folder, capture_output=True, text=True, check=False)


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def busy_worker(fleet: Harness, fetched: int) -> tuple[Process, str, list[str]]:
    """Return a worker whose one thread runs a gated task, that one, and tasks that it has fetched besides."""
    worker = fleet.worker(threads=1)
    running = fleet.actors.gated.push(fleet.gate()).id
    fleet.wait(lambda: fleet.effects("began", running), what="a running task")
    return worker, running, ids(fleet.actors.quick.push(i) for i in range(fetched))


def reasons(fleet: Harness, *tasks: str) -> list[str]:
    return [record.reason for task in tasks if (record := fleet.record(task))]


@where(("embedded", "rabbitmq"))
def test_a_paused_queue_rests_and_the_others_go_on(fleets: Fleets) -> None:
    fleet = fleets()
    urgent = urgent_actors.use(fleet)
    worker, running, fetched = busy_worker(fleet, 6)
    assert worker.pid

    pause(fleet)
    fleet.open_gate()
    others = ids(urgent.push(i) for i in range(10))
    fleet.wait(lambda: set(fleet.counted("ran")) >= {running, *others}, what="the running one and the other queue")
    new = fleet.worker()
    new.wait_settled_in()
    later = ids(fleet.actors.quick.push(i) for i in range(3))
    others += ids(urgent.push(i) for i in range(10))
    fleet.wait(lambda: set(fleet.counted("ran")) >= {running, *others}, what="the other queue")
    assert set(fleet.counted("ran")) == {running, *others}

    resume(fleet)
    counters = fleet.settle(30)
    assert fleet.counted("ran") == dict.fromkeys([running, *fetched, *later, *others], 1)
    assert counters["completed"] == 30
    assert [counters.get(name, 0) for name in ("crashes", "failed", "refused")] == [0, 0, 0]


@where(never=FOREIGN)
def test_what_was_fetched_goes_back_to_the_broker_in_order(fleets: Fleets) -> None:
    fleet = fleets()
    worker = fleet.worker(threads=4)  # It fetches 8.
    running = ids(fleet.actors.gated.push(fleet.gate()) for _ in range(4))
    fleet.wait(lambda: len(fleet.effects("began")) == 4, what="a busy worker")
    fetched = ids(fleet.actors.quick.push(i) for i in range(4))
    depth = adapter_of(fleet.broker).depth
    fleet.wait(lambda: depth("default") == 0, what="all of them in the worker")

    pause(fleet)

    fleet.wait(lambda: depth("default") == 4, what="all of them in the broker")
    fleet.open_gate()
    assert worker.stop() == 0
    assert set(fleet.counted("ran")) == set(running)
    fleet.worker(threads=1).wait_ready()
    resume(fleet)
    fleet.settle(8)
    assert [effect.task for effect in fleet.effects("ran")][4:] == fetched


@where()
def test_what_comes_due_waits_in_the_store_and_says_why(fleets: Fleets) -> None:
    fleet = fleets()
    fleet.resurrector()
    victim = fleet.worker(threads=1)
    orphan = fleet.actors.gated.push(fleet.gate()).id
    fleet.wait(lambda: fleet.effects("began", orphan), what="its start")
    delayed = fleet.actors.quick.send_with_options(args=(1,), delay=1).message_id

    pause(fleet)
    victim.kill()
    fleet.worker().wait_settled_in()

    in_store = [orphan, delayed] if adapter_of(fleet.broker).delays_in_store else [orphan]
    fleet.wait(lambda: reasons(fleet, *in_store) == ["paused"] * len(in_store), what="their reasons")
    fleet.open_gate()
    resume(fleet)
    counters = fleet.settle(2)
    assert fleet.counted("ran") == {orphan: 1, delayed: 1}
    assert counters["crashes"] == 1


@where(("embedded",))
def test_a_command_that_is_killed_has_done_all_or_nothing(fleets: Fleets) -> None:
    """Right before the store is told, and right after, when nobody has been sent a word yet."""
    fleet = fleets()
    urgent = urgent_actors.use(fleet)
    fleet.worker().wait_ready()

    assert rl(fleet, "queue", "pause", "default", failpoints="before-hold=kill").returncode == -signal.SIGKILL
    assert not fleet.store.fleet.holds()
    assert rl(fleet, "queue", "pause", "default", failpoints="held=kill").returncode == -signal.SIGKILL
    everybody_knows(fleet)
    assert "already paused" in rl(fleet, "queue", "pause", "default").stdout
    tasks = ids(fleet.actors.quick.push(i) for i in range(5))
    others = ids(urgent.push(i) for i in range(10))
    fleet.wait(lambda: set(fleet.counted("ran")) >= set(others), what="the other queue")
    assert rl(fleet, "queue", "resume", "default", failpoints="before-lift=kill").returncode == -signal.SIGKILL
    assert fleet.store.fleet.holds().queues
    assert not set(fleet.counted("ran")) & set(tasks)

    assert rl(fleet, "queue", "resume", "default", failpoints="lifted=kill").returncode == -signal.SIGKILL
    counters = fleet.settle(15)
    assert counters["completed"] == 15
    assert fleet.counted("ran") == dict.fromkeys([*tasks, *others], 1)


@where(("embedded",), needs="freezes")
def test_a_worker_that_missed_everything_asks_before_it_claims(fleets: Fleets) -> None:
    """As one that was frozen, or cut off from the store: its last look is too old."""
    fleet = fleets()
    worker = fleet.worker()
    worker.wait_settled_in()
    worker.signal(signal.SIGSTOP)
    fleet.wait(lambda: is_stopped(worker.pid), what="a frozen worker")
    tasks = ids(fleet.actors.quick.push(i) for i in range(5))
    assert pause_queue(fleet.store, "default", "a test")[0]
    paused = time.monotonic()
    fleet.wait(lambda: time.monotonic() - paused > FRESH + 0.5, what="a look that is too old")

    worker.signal(signal.SIGCONT)

    everybody_knows(fleet)
    assert fleet.effects() == [], fleet.report()
    resume(fleet)
    fleet.settle(5)
    assert fleet.counted("ran") == dict.fromkeys(tasks, 1)


@where()
def test_a_parked_actor_rests_and_the_others_of_its_queue_go_on(fleets: Fleets) -> None:
    fleet = fleets()
    fleet.workers(1)
    assert park_actor(fleet.store, "quick", "a test", fingerprint="f1")[0]
    everybody_knows(fleet)

    held = ids(fleet.actors.quick.push(i) for i in range(5))
    others = ids(fleet.actors.aquick.push(i) for i in range(5))

    fleet.wait(lambda: set(fleet.counted("ran")) >= set(others), what="the other actor")
    fleet.wait(lambda: reasons(fleet, *held) == ["parked"] * 5, what="their reasons")
    assert set(fleet.counted("ran")) == set(others)
    assert lift_actor(fleet.store, "quick")[0]
    counters = fleet.settle(10)
    assert counters["completed"] == 10
    assert fleet.counted("ran") == dict.fromkeys([*held, *others], 1)


@where(("embedded",), needs="prefetched", never=FOREIGN)
def test_tasks_in_the_recovery_pool_belong_to_their_queue(fleets: Fleets) -> None:
    fleet = fleets(recovery_queue="re-queue")
    fleet.resurrector()
    victim = fleet.worker(threads=2)
    tasks = ids(fleet.actors.gated.push(fleet.gate()) for _ in range(2))
    fleet.wait(lambda: len(fleet.effects("began")) == 2, what="both running")
    pool = fleet.worker(threads=1, queues=["re-queue"])
    assert pool.pid
    victim.kill()
    fleet.wait(lambda: len(fleet.effects("began")) == 3, what="one of them in the pool")
    other = next(task for task in tasks if not any(e.pid == pool.pid for e in fleet.effects("began", task)))
    fleet.wait(lambda: (r := fleet.record(other)) and r.published, what="the other one on its way to it")

    pause(fleet)
    fleet.open_gate()

    fleet.wait(lambda: reasons(fleet, other) == ["paused"], what="its reason")
    assert len(fleet.effects("began", other)) == 1
    resume(fleet)
    fleet.worker().wait_ready()  # It sees to the copies that went back to the queue itself.
    fleet.settle(2)
    assert fleet.counted("ran") == dict.fromkeys(tasks, 1)


@where(())
def test_a_paused_worker_lives_drains_and_is_replaced(fleets: Fleets) -> None:
    fleet = fleets(heartbeat_ttl=2)
    first, running, fetched = busy_worker(fleet, 6)
    identity = first.identity
    pause(fleet)
    started = time.monotonic()
    fleet.wait(lambda: time.monotonic() - started > 5, what="more than two TTLs")
    assert first.identity == identity
    first.popen.terminate()
    fleet.open_gate()
    assert first.popen.wait(60) == 0
    fleet.worker().wait_settled_in()
    assert set(fleet.counted("ran")) == {running}

    resume(fleet)
    counters = fleet.settle(7)
    assert fleet.counted("ran") == dict.fromkeys([running, *fetched], 1)
    assert counters.get("crashes", 0) == 0


@pytest.mark.parametrize("topology", ["rabbitmq"], indirect=True)
def test_rabbitmq_is_asked_for_a_queue_by_name(fleet: Harness) -> None:
    fleet.actors.quick.push(1)
    fleet.broker.ensure_queue("forgotten")
    typo = rl(fleet, "queue", "pause", "forgoten")
    assert (typo.returncode, "Nobody knows a queue 'forgoten'" in typo.stderr) == (1, True), typo.stderr
    assert rl(fleet, "queue", "pause", "forgotten").returncode == 0
    listing = rl(fleet, "queue", "list")
    assert listing.returncode == 0, listing.stderr
    assert [line.split()[:2] for line in listing.stdout.splitlines()[1:3]] == [["default", "1"], ["forgotten", "0"]]
