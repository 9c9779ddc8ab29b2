"""A purge: nothing older runs any more, wherever it was; everything newer does; the account adds up, kills or not."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from relier.brokers.adapters import adapter_of
from relier.purging import Purged, Purging, Selection
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import FOREIGN, cases, where
from tests.integration.harness import Harness, Process, ids
from tests.third_party.fleet import ForeignFleet
from tests.waiting import wait_until

_RL = [sys.executable, "-c", "from relier_cli.app import main; main()"]
#: A delay (ms) after which a task is due soon after the purge, and one that no test waits for.
SOON, LATER = 3_000, 3_600_000


def rl(fleet: Harness, *arguments: str, failpoints: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_RL, *arguments],
        env=fleet.environment(failpoints),
        cwd=fleet.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def purge(fleet: Harness, *queues: str, actor: str = "") -> Purged:
    """Purge from within this process, which is faster."""
    selection = Selection(queues, actor)
    return Purging(fleet.store, fleet.broker, fleet.settings, selection, "me").run(sorted(fleet.queues()))


def freeze(fleet: Harness, worker: Process) -> None:
    """Stop a worker, at a moment at which it does not keep everybody from the broker: SQLite's has one lock."""

    def is_frozen() -> bool:
        worker.signal(signal.SIGSTOP)
        stat = Path(f"/proc/{worker.pid}/stat")
        wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", 30, "the stop")
        if not isinstance(fleet, ForeignFleet) or fleet.kind != "sqlite" or _is_free(fleet.where):
            return True
        worker.signal(signal.SIGCONT)
        return False

    fleet.wait(is_frozen, what="a moment without a lock")


def _is_free(path: str) -> bool:
    with closing(sqlite3.connect(path, timeout=0.2)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.rollback()
        return True


def retried_later(fleet: Harness) -> str:
    """Return a task that has failed and waits for its retry; somebody works."""
    task: str = fleet.actors.flaky.send_with_options(args=(99,), min_backoff=LATER, max_backoff=LATER).message_id
    fleet.wait(lambda: fleet.store.status(task) == "scheduled", what="a retry")
    return task


@where(("embedded", "rabbitmq"))
def test_after_a_purge_nothing_older_runs_and_everything_newer_does(fleets: Fleets) -> None:
    """What was queued, delayed, retrying, running and fetched, with a worker that hangs and comes back."""
    fleet = fleets(heartbeat_ttl=3)
    stopped = fleet.worker(threads=1)
    retrying = retried_later(fleet)
    running = fleet.actors.gated.push(fleet.gate()).id
    fleet.wait(lambda: fleet.effects("began", running), what="a running task")
    old = ids(fleet.actors.quick.push(i) for i in range(3))  # fetched by the one that hangs
    freeze(fleet, stopped)
    old += ids(fleet.actors.quick.push(i) for i in range(20))
    delays = (SOON, LATER) if adapter_of(fleet.broker).delays_in_store else (SOON,)
    old += [fleet.actors.quick.send_with_options(args=(1,), delay=delay).message_id for delay in delays]

    done = rl(fleet, "queue", "purge", "--all", "--yes", "--json")
    assert done.returncode == 0, done.stderr + fleet.report()
    told = json.loads(done.stdout)

    new = ids(fleet.actors.quick.push(i) for i in range(5))
    new.append(fleet.actors.quick.send_with_options(args=(9,), delay=100).message_id)
    fleet.worker().wait_ready()
    fleet.wait(lambda: set(new) <= set(fleet.counted("ran")), what="what is new")
    fleet.wait(lambda: fleet.store.status(running) == "discarded", what="the end of the run that hung")
    stopped.signal(signal.SIGCONT)
    fleet.open_gate()
    everything = [retrying, running, *old, *new]
    counters = fleet.settle(len(everything))

    ran = fleet.counted("ran")
    assert {task: ran[task] for task in ran if task not in (retrying, running)} == dict.fromkeys(new, 1)
    assert (counters["discarded:purged"], counters["completed"]) == (len(everything) - len(new), len(new))
    assert told["tasks"] == told["in_store"] + sum((told["in_broker"] or {}).values())
    assert {fleet.store.status(task) for task in old} == {"discarded"}


@where((), never=FOREIGN)
def test_what_runs_goes_on_and_its_retry_does_not(fleets: Fleets) -> None:
    fleet = fleets()
    fleet.worker(threads=2)
    good = fleet.actors.gated.push(fleet.gate()).id
    bad = fleet.actors.gated.push(fleet.gate(), "ValueError").id
    fleet.wait(lambda: len(fleet.effects("began")) == 2, what="both runs")

    assert purge(fleet).tasks == 0
    fleet.open_gate()

    counters = fleet.settle(2)
    assert (counters["completed"], counters["discarded:purged"]) == (1, 1)
    assert (fleet.store.status(bad), len(fleet.effects("began", bad)), len(fleet.effects("began", good))) == (
        "discarded",
        1,
        1,
    )


@where((), never=FOREIGN)
def test_a_purge_of_one_actor_leaves_the_others_in_their_order(fleets: Fleets) -> None:
    fleet = fleets()
    doomed = [fleet.actors.quick.push(i).id for i in range(10) if fleet.actors.add.push(i, i)]

    assert purge(fleet, "default", actor="quick").drained == {"default": 10}

    assert adapter_of(fleet.broker).depth("default") == 10
    fleet.worker(threads=1)
    counters = fleet.settle(20)
    assert [effect.detail[0] for effect in fleet.effects("ran")] == list(range(10))
    assert counters["discarded:purged"] == len(doomed)


@where((), never=FOREIGN)
def test_a_released_dead_letter_is_exempt_and_dead_letters_stay(fleets: Fleets) -> None:
    fleet = fleets()
    worker = fleet.worker()
    dead = fleet.actors.broken.push().id
    fleet.wait(lambda: fleet.store.status(dead) == "dead", what="a dead letter")

    purge(fleet)

    assert fleet.store.status(dead) == "dead"
    assert rl(fleet, "dlq", "release", dead).returncode == 0
    fleet.wait(lambda: len(fleet.effects("ran", dead)) == 2, what="its run")
    assert worker.pid
    assert fleet.store.counters().get("discarded", 0) == 0


@pytest.mark.parametrize(
    ("point", "topology"),
    cases(
        {
            "before-mark": (),
            "purge-marked": (),
            "purge-judged": ("rabbitmq",),
            "purge-removed": ("embedded",),
            "purge-swept": (),
        },
        never=FOREIGN,
    ),
    indirect=["topology"],
)
def test_a_purge_that_is_killed_loses_and_doubles_nothing(fleets: Fleets, point: str) -> None:
    """What it was about to do is done by the next one, or by whoever gets a copy."""
    fleet = fleets()
    queued = ids(fleet.actors.quick.push(i) for i in range(8))
    delayed = [fleet.actors.quick.send_with_options(args=(i,), delay=LATER).message_id for i in range(4)]

    killed = rl(fleet, "queue", "purge", "--all", "--yes", failpoints=f"{point}=kill:{fleet.marker(point)}")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = purge(fleet)

    counters = fleet.check(len(queued) + len(delayed))
    assert counters["discarded:purged"] == len(queued) + len(delayed)
    assert adapter_of(fleet.broker).depth("default") == 0
    assert done.tasks <= len(queued) + len(delayed)


@where((), never=FOREIGN)
def test_what_a_killed_purge_left_behind_meets_the_mark(fleets: Fleets) -> None:
    """Also when nobody repeats it."""
    fleet = fleets()
    old = ids(fleet.actors.quick.push(i) for i in range(8))

    rl(fleet, "queue", "purge", "--all", "--yes", failpoints=f"purge-marked=kill:{fleet.marker('marked')}")

    fleet.worker()
    counters = fleet.settle(len(old))
    assert (counters["discarded:purged"], fleet.effects("ran")) == (len(old), [])
