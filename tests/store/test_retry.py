"""What waits is published at once on request; everything else is left alone, and said so."""

from __future__ import annotations

import pytest

from relier.store import Parking, Verdict
from tests.store.desk import SHARD, Desk


def retry(desk: Desk, task: str = "t") -> str:
    return desk.tasks.retry(task, "somebody", SHARD)


def backing_off(desk: Desk) -> None:
    desk.fail(desk.run(), retry=True, delay=600)


def delayed(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 600)


def parked(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    desk.tasks.park([(due, Parking("no consumer")) for due in desk.due()], 600.0)


def held(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    desk.tasks.hold("t", "hold", "somebody", SHARD)


@pytest.mark.parametrize("wait", [backing_off, delayed, parked, held])
def test_what_waits_is_due_at_once_and_runs(desk: Desk, wait: object) -> None:
    wait(desk)  # type: ignore[operator]
    assert desk.due() == []
    for _ in range(2):  # The reply may be lost.
        assert retry(desk) == "due"
    assert desk.claim(seen=desk.published()).verdict is Verdict.GRANTED
    assert desk.record().reason == ""


def test_it_keeps_its_attempts_and_its_history_says_who_asked(desk: Desk) -> None:
    backing_off(desk)
    retry(desk)
    assert desk.record().attempt == 1
    assert [(run.outcome, run.worker) for run in desk.record().runs] == [("failed", "w1"), ("retried", "somebody")]
    assert desk.events()[-1] == "retried"


def test_a_failure_recorded_before_is_not_recorded_again(desk: Desk) -> None:
    """Its reply was lost, and the task was retried meanwhile."""
    fence = desk.run()
    desk.fail(fence, retry=True, delay=600)
    retry(desk)
    assert desk.fail(fence, retry=True, delay=600) == "retry"
    assert [due.task_id for due in desk.due()] == ["t"]
    assert desk.count("failed") == 1


def test_what_runs_ended_or_has_a_copy_in_the_broker_is_left_alone(desk: Desk) -> None:
    assert retry(desk) == "unknown"
    fence = desk.run()
    assert retry(desk) == "running"
    desk.fail(fence)
    assert retry(desk) == "dead"
    assert desk.commit(desk.run(task="done"), task="done")
    assert retry(desk, "done") == "ended"
    desk.tasks.schedule(desk.sending("sent"), 0)
    desk.published("sent")
    before = desk.record("sent")
    assert retry(desk, "sent") == "queued"
    assert desk.record("sent") == before
