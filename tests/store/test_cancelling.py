"""Cancelling a task that runs: the store notes it, and whatever becomes of the run, it is the last one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relier.store import Verdict, shard_of
from tests.store.desk import SHARD, Desk


def cancel(desk: Desk, task: str = "t") -> str:
    return desk.tasks.hold(task, "cancel", "somebody", SHARD)[0]


def is_cancelled(desk: Desk) -> bool:
    record = desk.record()
    ended = (record.state, record.outcome, record.reason) == ("e", "discarded", "cancelled")
    return ended and desk.count("discarded:cancelled") == desk.count("discarded") == 1


def handed_over(desk: Desk, fence: int) -> None:
    assert desk.tasks.hand_over("w1", desk.sending(), fence, "shutdown")


def given_up(desk: Desk, fence: int) -> None:
    desk.tasks.reconcile("w1", desk.tasks.begin_snapshot(), {SHARD: []})


def crashed(desk: Desk, fence: int) -> None:
    desk.bury()


def taken_over(desk: Desk, fence: int) -> None:
    """Another worker claims the copy before the sweep sees what the burial of its owner put back."""
    desk.client.zadd(desk.store.keys.shard(SHARD, "")[3], {"w1": 1})
    assert desk.claim("w2").verdict is Verdict.SETTLED


ENDS: list[Callable[[Desk, int], None]] = [handed_over, given_up, crashed, taken_over]


@pytest.mark.parametrize("end", ENDS)
def test_a_cancelled_run_that_ends_without_a_word_is_the_last_one(desk: Desk, end: Callable[[Desk, int], None]) -> None:
    fence = desk.run()
    assert cancel(desk) == "running"

    end(desk, fence)

    assert desk.due() == []
    assert is_cancelled(desk)
    assert not desk.commit(fence)
    assert desk.claim("w3", seen=fence).verdict is Verdict.SETTLED


@pytest.mark.parametrize("retry", [True, False])
def test_a_cancelled_run_that_fails_is_no_failure_of_its_task(desk: Desk, retry: bool) -> None:
    fence = desk.run()
    cancel(desk)
    for _ in range(2):  # The reply may be lost.
        assert desk.fail(fence, retry=retry, hooks=True) == "discarded"
    assert is_cancelled(desk)
    assert desk.due() == []


def test_its_end_is_found_after_its_copy_was_removed(desk: Desk) -> None:
    fence = desk.run()
    cancel(desk)
    desk.fail(fence)
    desk.settle(fence, confirmed=True)
    assert is_cancelled(desk)


def test_a_cancelled_run_that_completes_has_completed(desk: Desk) -> None:
    fence = desk.run()
    cancel(desk)
    assert desk.commit(fence, hooks=True)
    assert (desk.record().outcome, desk.record().reason) == ("completed", "")
    assert cancel(desk) == "ended"


def test_a_cancelled_task_is_no_poison(desk: Desk) -> None:
    desk.run(max_resurrections=0)
    cancel(desk)
    desk.bury()
    assert desk.due() == []
    assert is_cancelled(desk)
    assert desk.count("crashes") == 1


def test_a_worker_hears_of_it_again_with_each_comparison(desk: Desk) -> None:
    fence = desk.run()
    other = desk.run(task="other")
    runs = {SHARD: [("t", fence), ("other", other)]}
    assert desk.tasks.reconcile("w1", desk.tasks.begin_snapshot(), runs).asked == ()
    cancel(desk)
    for _ in range(2):
        assert desk.tasks.reconcile("w1", desk.tasks.begin_snapshot(), runs).asked == ("t",)


def test_who_asked_is_told_once(desk: Desk) -> None:
    desk.run()
    cancel(desk)
    cancel(desk)
    assert [(event["event"], event["by"]) for event in desk.store.events()] == [("cancel asked", "somebody")]
    assert desk.record().reason == "cancel asked"


def test_a_release_takes_it_back(desk: Desk) -> None:
    fence = desk.run()
    cancel(desk)
    handed_over(desk, fence)
    assert desk.tasks.hold("t", "release", "somebody", SHARD)[0] == "released"
    assert [due.task_id for due in desk.due()] == ["t"]


# -- a task of which nothing is known ---------------------------------------------------------------------------------


def test_a_task_that_may_come_to_any_shard_finds_itself_settled_there(desk: Desk) -> None:
    assert shard_of("t") != SHARD
    for _ in range(2):
        assert desk.tasks.mark_elsewhere("t") is None
    known = desk.store.known("t", SHARD)
    assert (known.status, known.reason, known.is_mark) == ("discarded", "cancelled", True)
    assert cancel(desk) == "marked"
    assert desk.claim().verdict is Verdict.SETTLED
    assert (desk.find(), desk.store.counters()) == (None, {})


def test_what_a_shard_knows_is_not_marked(desk: Desk) -> None:
    desk.run()
    assert desk.tasks.mark_elsewhere("t") == SHARD
    assert desk.state() == "r"


def test_marks_are_forgotten_after_a_week(desk: Desk) -> None:
    desk.tasks.mark_elsewhere("t")
    desk.client.hset(desk.store.keys.shard(SHARD, "")[2], "age", str(8 * 86_400 * 1_000_000))
    desk.due()
    assert desk.claim().verdict is Verdict.GRANTED


def test_the_newest_thousand_marks_of_a_shard_stay(desk: Desk) -> None:
    tasks = [f"t{number}" for number in range(1002)]
    for task in tasks:
        desk.tasks.mark_elsewhere(task)
        desk.wait(0.001)
    kept = [task for task in tasks[:4] + tasks[-1:] if desk.store.known(task, SHARD).state]
    first = [task for task in tasks if shard_of(task) != SHARD][-1000:]
    assert kept == [task for task in tasks[:4] + tasks[-1:] if task in first]
