"""Dead letters on their way out, while those who let them out are killed: nothing is lost, nothing happens twice."""

from __future__ import annotations

import pytest

from relier.dlq import DeadLetters, Wanted
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import cases, where
from tests.integration.harness import Harness, Process, ids

BOTH, EMBEDDED = ("embedded", "rabbitmq"), ("embedded",)
LETTERS = 6

_ACT = """
from relier.dlq import DeadLetters, Wanted
from relier.store import get_store
DeadLetters(get_store(), "somebody").{what}
"""


def dead_letters(fleet: Harness, count: int = LETTERS) -> list[str]:
    """Let tasks fail that wait for a gate: they complete once it is open. Returns their ids."""
    fleet.worker().wait_ready()
    made = ids(fleet.actors.mended.push(fleet.gate()) for _ in range(count))
    fleet.wait(lambda: DeadLetters(fleet.store).count() == count, what="the dead letters")
    return made


def killed(fleet: Harness, what: str, point: str) -> Process:
    """Let somebody act who is killed at a point; wait for that end."""
    process = fleet.script(_ACT.format(what=what), failpoints=f"{point}=kill:{fleet.marker(point)}")
    fleet.wait(lambda: process.is_over and fleet.marker(point).exists(), what=f"the death at {point}")
    return process


@pytest.mark.parametrize(
    ("point", "topology"), cases({"before-release": EMBEDDED, "released": BOTH}), indirect=["topology"]
)
def test_whoever_releases_all_is_killed_at(point: str, fleet: Harness) -> None:
    """The release is asked for again: every letter runs once more, whatever the first one had done."""
    made = dead_letters(fleet)
    fleet.open_gate()
    killed(fleet, "release_all(Wanted(), rate=20)", point)  # two letters a piece

    DeadLetters(fleet.store).release_all(Wanted())

    counters = fleet.settle(LETTERS)
    assert (counters["completed"], counters["dead"], counters["dlq_left"]) == (LETTERS, LETTERS, LETTERS)
    assert fleet.counted("ran") == dict.fromkeys(made, 1), fleet.report()
    assert fleet.counted("began") == dict.fromkeys(made, 2), fleet.report()


@pytest.mark.parametrize(
    ("point", "topology"), cases({"before-purge": EMBEDDED, "purged": EMBEDDED}), indirect=["topology"]
)
def test_whoever_purges_is_killed_at(point: str, fleet: Harness) -> None:
    made = dead_letters(fleet)
    killed(fleet, "purge(Wanted())", point)

    tally = DeadLetters(fleet.store).purge(Wanted())

    assert tally["purged"] == (LETTERS if point == "before-purge" else 0)
    counters = fleet.settle(LETTERS)
    assert (counters["discarded"], counters["discarded:purged"], counters["dlq_left"]) == (LETTERS,) * 3
    assert fleet.counted("began") == dict.fromkeys(made, 1), fleet.report()


@pytest.mark.parametrize(
    ("point", "topology"), cases({"published": ("rabbitmq",), "marked": EMBEDDED}), indirect=["topology"]
)
def test_the_sweeper_that_publishes_released_letters_is_killed_at(point: str, fleet: Harness) -> None:
    made = dead_letters(fleet)
    fleet.open_gate()
    for process in fleet.processes:
        process.stop()
    DeadLetters(fleet.store).release_all(Wanted())

    fleet.workers(2, failpoints=f"{point}=kill:{fleet.marker(point)}")

    counters = fleet.settle(LETTERS)
    assert fleet.marker(point).exists()
    assert counters["completed"] == LETTERS
    ran = fleet.counted("ran")
    assert set(ran) == set(made)
    # The killed worker may have run some as well: what it had not committed runs again.
    assert sum(ran.values()) <= LETTERS + counters.get("crashes", 0), fleet.report()


@where(EMBEDDED)
def test_a_canary_that_fails_keeps_the_others_and_one_that_completes_lets_them_go(fleet: Harness) -> None:
    made = dead_letters(fleet)
    dead = DeadLetters(fleet.store)
    oldest, second = (place.task_id for place in dead.places()[:2])
    canary = dead.try_one(dead.places())
    assert canary is not None
    assert (canary.task_id, canary.outcome) == (oldest, "dead")
    assert sorted(fleet.counted("began").values()) == [1] * (LETTERS - 1) + [2]

    fleet.open_gate()
    canary = dead.try_one(dead.places())
    assert canary is not None
    assert (canary.task_id, canary.outcome) == (second, "completed")
    dead.release_all()

    counters = fleet.settle(LETTERS)
    assert (counters["completed"], counters["dead"], counters["dlq_left"]) == (LETTERS, LETTERS + 1, LETTERS + 1)
    assert fleet.counted("ran") == dict.fromkeys(made, 1), fleet.report()


@where(EMBEDDED)
def test_a_released_poison_task_runs_once_and_is_quarantined_again(fleet: Harness) -> None:
    """A release is no way around `max_resurrections`."""
    fleet.resurrector().wait_ready()
    task = fleet.actors.poison.push().id
    dead = DeadLetters(fleet.store)

    def is_dead() -> bool:
        record = fleet.record(task)
        crashes = record.crashes if record else 0
        if len(fleet.processes) - 1 <= crashes < limit:
            fleet.worker()  # in place of the one that died
        return crashes == limit and dead.count() == 1

    limit = 3  # max_resurrections is 2
    fleet.wait(is_dead, what="its quarantine")
    assert dead.release(task) == {task: "released"}
    limit = 4
    fleet.wait(is_dead, what="its quarantine after one more run")

    record = fleet.record(task)
    assert record is not None
    assert len(fleet.effects("began", task)) == limit, fleet.report()
    assert record.reason == "max_resurrections_exceeded"
    assert [run.outcome for run in record.runs] == ["crashed", "crashed", "crashed", "released", "crashed"]


@where(EMBEDDED)
def test_a_letter_with_other_arguments_is_signed_again_and_completes(fleets: Fleets) -> None:
    fleet = fleets(signing_keys="k1:" + 32 * "a")
    fleet.worker().wait_ready()
    task = fleet.actors.add.push("three", 4).id
    fleet.wait(lambda: DeadLetters(fleet.store).count() == 1, what="its death")

    outcome = DeadLetters(fleet.store).release_edited(task, [3, 4], settings=fleet.settings, broker=fleet.broker)

    assert outcome == ("released", "")
    counters = fleet.settle(1)
    assert (counters["completed"], counters["dead"]) == (1, 1), fleet.report()
    assert counters.get("integrity_failures", 0) == 0
