"""The actor that another one names as `on_dead` gets the record of each of its dead letters, once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from relier_cli.dlq import letter
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import USUAL, cases, where
from tests.integration.harness import Harness


def told(fleet: Harness) -> list[dict[str, Any]]:
    return [effect.detail for effect in fleet.effects("told dead")]


@where(USUAL)
def test_the_dead_record_is_what_the_command_line_tells(fleet: Harness) -> None:
    fleet.worker()
    task = fleet.actors.dead.doomed.push(7).id

    counters = fleet.settle(2)

    assert (counters["dead"], counters["completed"], counters["notices"]) == (1, 1, 1)
    (record,) = told(fleet)
    whole = letter(fleet.store, task)
    assert {name: whole[name] for name in record} == record
    assert (record["id"], record["actor"], record["queue"], record["args"]) == (task, "doomed", "default", [7])
    assert (record["reason"], record["attempts"], record["resurrection_count"]) == ("TypeError", 1, 0)
    assert record["exception"]["message"] == "doomed"
    assert "dead_actors.py" in record["exception"]["traceback"]
    assert [run["outcome"] for run in record["runs"]] == ["failed"]


@pytest.mark.parametrize(
    ("point", "topology"),
    cases(
        dict.fromkeys(("before-publish", "marked"), ())
        | {"before-fail": ("embedded",), "failed": USUAL, "published": ("rabbitmq",)}
    ),
    indirect=["topology"],
)
def test_each_death_is_told_once_when_a_worker_is_killed_at(point: str, fleet: Harness) -> None:
    fleet.workers(2, failpoints=f"{point}=kill:{fleet.marker(point)}")
    doomed = fleet.actors.dead.doomed
    tasks = [receipt.id for receipt in doomed.push_many([doomed.message(n) for n in range(6)])]

    counters = fleet.settle(12)

    assert fleet.marker(point).exists()
    assert (counters["notices"], counters["completed"]) == (6, 6)
    heard = Counter(record["id"] for record in told(fleet))
    assert set(heard) == set(tasks)
    # The killed worker may have been telling as well: what it had not committed is told again.
    assert heard.total() <= 6 + counters.get("crashes", 0)


def test_a_task_that_may_not_run_twice_dies_with_its_worker(fleet: Harness) -> None:
    fleet.workers(2)
    task = fleet.actors.dead.fragile.push().id

    counters = fleet.settle(2)

    assert counters["crashes"] == counters["dead"] == counters["completed"] == 1
    assert fleet.counted("began") == {task: 1}
    (record,) = told(fleet)
    assert (record["id"], record["reason"]) == (task, "max_resurrections_exceeded")
    assert (record["resurrection_count"], record["max_resurrections"]) == (1, 0)
    assert [run["outcome"] for run in record["runs"]] == ["crashed"]


@pytest.mark.parametrize(
    ("point", "topology"),
    cases(dict.fromkeys(("declared", "buried"), ()) | {"buried-some": ("rabbitmq",)}),
    indirect=["topology"],
)
def test_a_death_by_crash_is_told_once_when_the_sweeper_is_killed_at(point: str, fleet: Harness) -> None:
    fleet.workers(3, failpoints=f"{point}=kill:{fleet.marker(point)}")
    tasks = [fleet.actors.dead.fragile.push().id]
    fleet.wait(fleet.marker(point).exists, what=f"the sweeper's death at {point}")

    fleet.settle(2)

    assert [record["id"] for record in told(fleet)] == tasks


@where(("embedded",))
def test_a_notice_waits_for_its_worker(fleet: Harness) -> None:
    fleet.worker(queues=("default",))
    fleet.actors.dead.doomed.push(1)
    fleet.wait(lambda: fleet.store.counters().get("parked"), what="a parked notice")
    assert told(fleet) == []

    fleet.worker(queues=("high_priority",))

    fleet.settle(2)
    assert len(told(fleet)) == 1


@where(("embedded",))
def test_a_notice_that_dies_is_a_dead_letter_of_its_own_and_tells_nobody(fleet: Harness) -> None:
    fleet.worker()
    task = fleet.actors.dead.unheard.push(1).id

    assert fleet.settle(2)["dead"] == 2

    assert len(told(fleet)) == 1
    (notice,) = [name for name, _, _ in fleet.store.dead_letters(10) if name != task]
    record = letter(fleet.store, notice)
    assert (record["actor"], record["reason"]) == ("deaf", "TypeError")
    assert record["args"] == told(fleet)


@where(("embedded",))
def test_a_notice_is_signed_where_tasks_are(fleets: Fleets) -> None:
    fleet = fleets(signing_keys="a:0123456789abcdef0123456789abcdef")
    fleet.worker()
    fleet.actors.dead.doomed.push(1)

    fleet.settle(2)

    assert len(told(fleet)) == 1
