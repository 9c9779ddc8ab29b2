"""A crash between any two steps loses nothing and doubles nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import relier
from tests.conformance.conftest import Fleets
from tests.conformance.test_cancelling import CANCEL_POINTS
from tests.conformance.topologies import cases
from tests.integration.harness import Harness
from tests.integration.scenario import Scenario

#: Steps of a run, a failure, and the hooks.
RUN_POINTS = (
    "fetched",
    "claimed",
    "running",
    "done",
    "committed",
    "before-follow-up",
    "hooks",
    "acknowledged",
    "before-fail",
    "failed",
)
#: Steps of an enqueue, in a worker.
ENQUEUE_POINTS = ("before-enqueue", "enqueued")
#: Steps of a push with a job key; see `test_job_keys`.
JOB_POINTS = ("before-custody", "in-custody")
#: Steps of the sweep.
PUBLISH_POINTS = ("before-publish", "published", "marked")
LOOK_POINTS = ("leased", "observed")
BURY_POINTS = ("before-declare", "declared", "buried-some", "before-give-back", "buried")
SWEEP_POINTS = (*LOOK_POINTS, *BURY_POINTS, *PUBLISH_POINTS)
HAND_OVER_POINTS = ("handed-over",)
#: Steps of a retention; see `test_dlq_limits`.
EXPIRY_POINTS = ("before-expire", "expired")
#: Steps of a checkpoint that is a file; see `test_checkpoints`.
CHECKPOINT_POINTS = ("checkpoint-written", "checkpoint-recorded")
#: Steps of what is done with dead letters; see `test_releases`.
LETTER_POINTS = ("before-release", "released", "before-purge", "purged")

#: Steps of pausing and resuming; see `test_pausing`.
HOLD_POINTS = ("before-hold", "held", "before-lift", "lifted")
#: Steps of purging a queue; see `test_purging`.
PURGE_POINTS = ("before-mark", "purge-marked", "purge-judged", "purge-removed", "purge-swept")


def test_every_failpoint_of_the_code_is_tested() -> None:
    source = Path(relier.__file__).parent
    names = {
        name for file in source.rglob("*.py") for name in re.findall(r'failpoints\.hit\("([^"]+)"\)', file.read_text())
    }

    assert names == {
        *RUN_POINTS,
        *ENQUEUE_POINTS,
        *JOB_POINTS,
        *SWEEP_POINTS,
        *HAND_OVER_POINTS,
        *CHECKPOINT_POINTS,
        *EXPIRY_POINTS,
        *HOLD_POINTS,
        *PURGE_POINTS,
        *LETTER_POINTS,
        *CANCEL_POINTS,
    }


EMBEDDED, BOTH = ("embedded",), ("embedded", "rabbitmq")


@pytest.mark.parametrize(
    ("point", "topology"),
    cases(
        dict.fromkeys((*RUN_POINTS, *ENQUEUE_POINTS, *PUBLISH_POINTS), BOTH)
        | {"claimed": (*BOTH, "two-redises"), "committed": (*BOTH, "redis"), "failed": (*BOTH, "two-redises", "quorum")}
    ),
    indirect=["topology"],
)
def test_a_worker_killed_at(point: str, fleet: Harness) -> None:
    fleet.workers(2, failpoints=f"{point}=kill:{fleet.marker(point)}")
    scenario = Scenario(fleet)
    scenario.push()

    scenario.settle()

    assert fleet.marker(point).exists(), fleet.report()


def test_a_stopping_worker_killed_at_handed_over(fleet: Harness) -> None:
    first = fleet.worker(failpoints=f"handed-over=kill:{fleet.marker('handed-over')}")
    task = fleet.actors.notified.push(fleet.gate()).id
    fleet.wait(lambda: fleet.effects("began", task), what="its start")
    fleet.worker().wait_ready()

    first.popen.terminate()

    fleet.wait(lambda: len(fleet.effects("began", task)) == 2, what="its second run")
    fleet.open_gate()
    counters = fleet.settle(1)
    assert fleet.marker("handed-over").exists()
    assert counters["handed_over"] == 1
    assert counters.get("crashes", 0) == 0


@pytest.mark.parametrize(
    ("point", "topology"),
    cases({"before-declare": EMBEDDED, "declared": EMBEDDED, "buried-some": ("redis",), "buried": ("rabbitmq",)}),
    indirect=["topology"],
)
def test_a_sweeping_worker_killed_at(point: str, fleet: Harness) -> None:
    fleet.workers(3, failpoints=f"{point}=kill:{fleet.marker(point)}")
    _kill_and_settle(fleet, point)


@pytest.mark.parametrize(
    ("point", "topology"),
    cases(
        dict.fromkeys(LOOK_POINTS, ())
        | dict.fromkeys(BURY_POINTS, EMBEDDED)
        | dict.fromkeys(PUBLISH_POINTS, ("rabbitmq",))
        | {"before-give-back": ("rabbitmq",)}
    ),
    indirect=["topology"],
)
def test_a_resurrector_killed_at(point: str, fleet: Harness) -> None:
    """The workers go on."""
    fleet.resurrector(failpoints=f"{point}=kill:{fleet.marker(point)}")
    fleet.workers(2)
    fleet.wait(lambda: _leased(fleet) or fleet.marker(point).exists(), what="its lease")
    _kill_and_settle(fleet, point)


@pytest.mark.parametrize(
    ("point", "topology"),
    cases(dict.fromkeys(SWEEP_POINTS, ()) | {"leased": ("rabbitmq",), "declared": EMBEDDED, "published": EMBEDDED}),
    indirect=["topology"],
)
def test_the_next_resurrector_goes_on_after_one_was_killed_at(point: str, fleets: Fleets) -> None:
    fleet = fleets()
    for _ in range(2):
        fleet.resurrector(failpoints=f"{point}=kill:{fleet.marker(point)}")
    fleet.workers(2, resurrection_enabled=False)
    fleet.wait(lambda: _leased(fleet) or fleet.marker(point).exists(), what="a lease")
    _kill_and_settle(fleet, point)


def _leased(fleet: Harness) -> bool:
    return any(lease.startswith("r|") for lease in fleet.store.fleet.leases().values())


def _kill_and_settle(fleet: Harness, point: str) -> None:
    """Kill a busy worker; whoever sweeps dies as well, and somebody goes on."""
    victim = fleet.busy_worker(tasks=3)
    scenario = Scenario(fleet)
    scenario.push()
    running = {effect.task for effect in fleet.effects("began") if effect.pid == victim.pid}
    victim.kill()
    fleet.wait(fleet.marker(point).exists, what=f"the sweeper's death at {point}")
    fleet.open_gate()
    scenario.expected += 3

    counters = scenario.settle()

    assert counters["crashes"] >= len(running) >= 1
    assert set(fleet.counted("ran")) >= {effect.task for effect in fleet.effects("began")}
