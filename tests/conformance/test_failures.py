"""The failure table, row by row: what becomes of a task that fails.

Rows that have a file of their own: the worker died (`test_deaths`, `test_poison`), bad signatures (`test_integrity`)
and undecodable bytes (`test_payloads`), migrations and newer versions (`test_versions`), timeouts of async actors
(`test_timeouts`), shutdown (`test_drain`), what is skipped or too old (`test_kinds`).
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from dramatiq import Message
from dramatiq.results.errors import ResultFailure

from tests.conformance.conftest import Fleets
from tests.conformance.topologies import cases
from tests.integration.failing_actors import HOPELESS
from tests.integration.harness import Harness

CALLBACKS = {"on_failure": "told", "on_retry_exhausted": "told"}


def test_every_row_of_the_failure_table(fleets: Fleets) -> None:
    fleet = fleets(unknown_actor_grace=1)
    worker = fleet.worker(threads=8)
    a = fleet.actors.failing
    same = ["no order 4711 (id {:x})"] * 9
    hopeless = {a.hopeless.push(how).id: how for how in HOPELESS}
    passing = {how: a.passing.push(how, 2).id for how in ("refused", "timeout", "busy", "later")}
    limited = a.passing.push("limited", 2).id
    stopped = _with_callbacks(fleet, a.unsure, same)
    changing = a.unsure.push(["one", "two", "one", "two", "one", "two", "one"]).id
    saved = a.unsure.push(["one", "one"]).id
    counted, asked = a.counted.push(same).id, a.asked.push(same).id
    expected = _with_callbacks(fleet, a.expecting)
    outage = a.outage.push().id
    overrunning = a.overrunning.push().id
    unknown = fleet.broker.enqueue(Message("default", "nobody", (), {}, {})).message_id
    dead = Counter(hopeless.values()) + Counter({"ValueError": 4, "Unwelcome": 1, "PermissionError": 1})
    dead += Counter({"TimeLimitExceeded": 1, "ActorNotFound": 1})

    # Told of the stopped one: three failures and its end; of the expected one: its failure.
    counters = fleet.settle(dead.total() + len(passing) + 2 + 5)

    assert Counter(fleet.dead_ones()) == dead
    runs = fleet.counted("ran")
    assert {task: runs[task] for task in hopeless} == dict.fromkeys(hopeless, 1)
    assert {how: runs[task] for how, task in passing.items()} == dict.fromkeys(passing, 3)
    assert all(later - sooner >= 0.7 for how in ("busy", "later") for sooner, later in _gaps(fleet, passing[how]))
    assert [effect.detail for effect in fleet.effects("ran", limited)] == [["limited", 0]] * 3
    assert [runs[task] for task in (stopped.message_id, changing, saved)] == [3, 6, 3]
    assert [runs[task] for task in (counted, asked, outage)] == [5, 5, 5]
    assert [runs[task] for task in (expected.message_id, unknown)] == [1, 0]
    assert (counters["stopped_identical"], counters.get("crashes", 0)) == (1, 0)
    _check_the_end(fleet, stopped)
    assert _told(fleet, expected) == [{"type": "Unwelcome", "message": "as expected"}]
    assert _series(fleet, outage) == (5, "transient", True)
    assert _series(fleet, changing) == (1, "unclassified", False)
    assert _series(fleet, counted) == (5, "unclassified", True)
    assert _series(fleet, next(iter(hopeless))) == (1, "deterministic", False)
    assert fleet.effects("began", overrunning)
    assert "Received unregistered task of type 'nobody'" in worker.text()


@pytest.mark.parametrize(
    ("point", "topology"),
    cases({"before-fail": ("embedded",), "failed": ("rabbitmq",)}),
    indirect=["topology"],
)
def test_a_worker_that_is_killed_at_the_third_identical_failure(point: str, fleet: Harness) -> None:
    """The row is kept, the end is told once, and whoever waits for the result gets it."""
    marker = fleet.marker(point)
    marker.touch()
    fleet.workers(2, failpoints=f"{point}=kill:{marker}")
    message = _with_callbacks(fleet, fleet.actors.failing.armed, str(marker))

    crashes = int(point == "before-fail")  # Then the third failure was told, but not recorded.

    counters = fleet.settle(1 + 3 + crashes + 1)

    assert marker.exists()
    assert counters["stopped_identical"] == 1
    # A callback that had ended in the killed worker, and was not yet told to the store, ran again.
    assert crashes <= counters.get("crashes", 0) <= crashes + 3
    assert fleet.counted("ran")[message.message_id] == 3 + crashes
    _check_the_end(fleet, message, failures=3 + crashes)


def _with_callbacks(fleet: Harness, actor: Any, *args: Any) -> Any:
    message = actor.message_with_options(args=args, **CALLBACKS)
    fleet.broker.enqueue(message)
    return message


def _told(fleet: Harness, message: Any) -> list[Any]:
    told = {effect.task: effect.detail for effect in fleet.effects("told")}.values()
    return [detail[1] for detail in told if detail[0]["message_id"] == message.message_id]


def _check_the_end(fleet: Harness, message: Any, failures: int = 3) -> None:
    """The failures of a task that was stopped at its third identical one were told, and its end, once."""
    told = _told(fleet, message)
    assert [t for t in told if "retries" in t] == [{"retries": 2, "max_retries": 2}]
    assert [t["type"] for t in told if "type" in t] == ["ValueError"] * failures
    with pytest.raises(ResultFailure, match="ValueError: no order"):
        message.get_result(backend=fleet.broker.get_results_backend())
    record = fleet.record(message.message_id)
    assert record is not None
    assert (record.state, record.identical, record.attempt) == ("d", 3, 3)
    assert _series(fleet, message.message_id) == (3, "unclassified", True)


def _series(fleet: Harness, task: str) -> tuple[int, str, bool]:
    from relier_cli.dlq import letter

    entry = letter(fleet.store, task)
    return entry["identical_failures"], entry["failure_kind"], entry["series"] is not None


def _gaps(fleet: Harness, task: str) -> list[tuple[float, float]]:
    at = [effect.mono for effect in fleet.effects("ran", task)]
    return list(pairwise(at))
