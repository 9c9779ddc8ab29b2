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
    assert (desk.find(), desk.store.counters()) == (None, {})
    for _ in range(2):
        assert desk.claim().verdict is Verdict.SETTLED
    assert is_cancelled(desk)
    assert desk.count("accepted") == 1
    assert (desk.store.known("t").shard, cancel(desk)) == (SHARD, "cancelled")


def forgotten(desk: Desk) -> int:
    """Run a task to its end, so that nothing is kept of it; returns the fence of its run."""
    fence = desk.run()
    assert desk.commit(fence)
    desk.settle(fence, confirmed=True)
    assert desk.find() is None
    return fence


def test_a_mark_invents_no_end(desk: Desk) -> None:
    forgotten(desk)
    before = desk.store.counters()
    for _ in range(2):
        assert cancel(desk) == "marked"
    record = desk.record()
    assert (record.state, record.outcome, record.reason, record.status) == ("e", "marked", "cancelled", "marked")
    assert desk.store.known("t", SHARD).status == "discarded"  # What a receipt says: it does not run from then on.
    assert [event["event"] for event in desk.store.events()] == ["marked"]
    assert desk.store.counters() == before


def test_a_late_copy_of_a_task_that_was_counted_makes_no_end_of_its_mark(desk: Desk) -> None:
    fence = forgotten(desk)
    before = desk.store.counters()
    cancel(desk)
    assert desk.claim(seen=fence).verdict is Verdict.SETTLED
    assert desk.tasks.decline("w1", desk.sending(), fence)
    assert (desk.record().outcome, desk.store.counters()) == ("marked", before)


def claimed(desk: Desk) -> None:
    assert desk.claim().verdict is Verdict.SETTLED


def declined(desk: Desk) -> None:
    assert desk.tasks.decline("w1", desk.sending(), 0)


def too_old(desk: Desk) -> None:
    desk.tasks.discard("w1", desk.sending(), 0, "age_limit")


def refused(desk: Desk) -> None:
    desk.tasks.dead_letter(desk.sending(), "PayloadIntegrityError", b"")


MEETINGS: list[Callable[[Desk], None]] = [claimed, declined, too_old, refused]


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("meet", MEETINGS)
def test_the_first_copy_that_meets_a_mark_makes_one_end_of_it(
    desk: Desk, meet: Callable[[Desk], None], elsewhere: bool
) -> None:
    if elsewhere:
        desk.tasks.mark_elsewhere("t")
    else:
        assert cancel(desk) == "marked"
    for again in (meet, *MEETINGS):
        again(desk)
        assert is_cancelled(desk)
        assert desk.count("accepted") == 1
    assert (desk.record().actor, desk.record().queue) == (desk.sending().actor, desk.sending().queue)
    assert cancel(desk) == "cancelled"
    desk.client.hset(desk.store.keys.shard(SHARD, "")[2], "age", str(8 * 86_400 * 1_000_000))
    desk.due()
    assert desk.find() is None


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
