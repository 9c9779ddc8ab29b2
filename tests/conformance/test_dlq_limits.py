"""Dead letters are kept for ever, unless somebody says otherwise; and it is said when there are many."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import Fleets
from tests.conformance.topologies import cases, where


@where(("embedded",))
def test_the_sweeper_warns_when_there_are_many_dead_letters(fleets: Fleets) -> None:
    fleet = fleets(dlq_alarm=3)
    worker = fleet.worker()
    broken = fleet.actors.broken
    broken.push_many([broken.message() for _ in range(3)])

    fleet.settle(3)

    fleet.wait(lambda: "as many dead letters as RELIER_DLQ_ALARM" in worker.text(), what="the alarm")
    assert fleet.store.live()["dead_letters"] == 3


@pytest.mark.parametrize(
    ("point", "topology"),
    cases({"before-expire": ("rabbitmq",), "expired": ("embedded",)}),
    indirect=["topology"],
)
def test_what_is_too_old_is_discarded_and_counted_when_a_worker_is_killed_at(point: str, fleets: Fleets) -> None:
    fleet = fleets(dlq_retention=0.5)
    fleet.workers(2, failpoints=f"{point}=kill:{fleet.marker(point)}")
    broken = fleet.actors.broken
    broken.push_many([broken.message() for _ in range(20)])

    fleet.wait(lambda: fleet.store.counters().get("discarded:expired") == 20, what="their end")

    counters = fleet.settle(20)
    assert fleet.marker(point).exists()
    assert counters["dead"] == counters["dlq_left"] == counters["discarded"] == 20
