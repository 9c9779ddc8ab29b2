"""A cancelled task never runs again, whoever dies in between."""

from __future__ import annotations

import pytest

from relier import TaskReceipt
from tests.conformance.topologies import cases, where
from tests.integration.harness import Harness

#: Steps of cancelling a task that runs. The first is its canceller's, the others its worker's.
CANCEL_POINTS = ("cancel-noted", "cancel-heard", "before-cancelled", "cancelled")

EMBEDDED, BOTH = ("embedded",), ("embedded", "rabbitmq")

_CANCEL = """
from relier.cancelling import cancel_task
from relier.settings import get_settings
from relier.store import get_store
print(cancel_task(get_store(get_settings()), "{task}", "somebody", None))
"""


def began(fleet: Harness, task: str) -> None:
    fleet.wait(lambda: fleet.effects("began", task), what="its start")


@pytest.mark.parametrize(
    ("point", "topology"),
    cases(dict.fromkeys(CANCEL_POINTS, EMBEDDED) | {"cancelled": BOTH}),
    indirect=["topology"],
)
def test_a_task_is_cancelled_though_somebody_is_killed_at(point: str, fleet: Harness) -> None:
    mine = point == "cancel-noted"
    failpoint = f"{point}=kill:{fleet.marker(point)}"
    fleet.worker(failpoints="" if mine else failpoint)
    task = fleet.actors.gated.push(fleet.gate()).id
    began(fleet, task)
    fleet.worker().wait_ready()

    fleet.script(_CANCEL.format(task=task), failpoints=failpoint if mine else "")

    fleet.wait(fleet.marker(point).exists, what="the death")
    counters = fleet.settle(1)
    assert counters["discarded:cancelled"] == counters["discarded"] == 1
    assert counters.get("crashes", 0) == (point in ("cancel-heard", "before-cancelled"))
    assert len(fleet.effects("began", task)) == 1
    assert not fleet.effects("ran", task)


@where()
def test_a_sync_task_is_interrupted_and_its_threads_next_one_is_not(fleet: Harness) -> None:
    fleet.worker(threads=1)
    cancelled = fleet.actors.gated.push(fleet.gate("never"))
    beside = [fleet.actors.short.push(0.1).id for _ in range(3)]
    began(fleet, cancelled.id)

    fleet.wait(lambda: cancelled.cancel() == "asked", what="a worker that listens")

    counters = fleet.settle(4)
    assert cancelled.status() == "discarded"
    assert (counters["completed"], counters["discarded:cancelled"]) == (3, 1)
    assert counters.get("failed", 0) == 0
    assert fleet.counted("ran") == dict.fromkeys(beside, 1)


@where(("embedded",))
def test_one_that_fails_after_it_was_cancelled_is_not_retried(fleet: Harness) -> None:
    """Its worker was not told: the store alone knows."""
    fleet.worker()
    task = fleet.actors.gated.push(fleet.gate(), "fails").id
    began(fleet, task)
    assert fleet.store.tasks.hold(task, "cancel", "somebody")[0] == "running"
    fleet.open_gate()

    counters = fleet.settle(1)
    assert counters["discarded:cancelled"] == 1
    assert counters.get("retries", 0) == 0


@where()
def test_an_idempotent_task_is_cancelled_by_its_id_while_it_waits_in_the_broker(fleet: Harness) -> None:
    """Nobody but its push knows in which shard it will be."""
    pushed = [fleet.actors.once.push(fleet.gate(), number) for number in range(3)]
    for receipt in pushed[:2]:
        assert TaskReceipt.from_id(receipt.id, broker=fleet.broker).cancel() == "marked"
    fleet.open_gate()

    fleet.worker()

    counters = fleet.settle(3)
    assert (counters["completed"], counters["discarded:cancelled"]) == (1, 2)
    assert [receipt.status() for receipt in pushed] == ["discarded", "discarded", "completed"]
    assert set(fleet.counted("ran")) == {pushed[2].id}
