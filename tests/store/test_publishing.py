"""What is due, how it is published, and what people may do to waiting and dead tasks."""

from __future__ import annotations

import pytest

from relier.store import Sending, Verdict
from relier.store.scripts import script
from tests.store.desk import NOW, SHARD, Desk

# -- due and mark_published -------------------------------------------------------------------------------------------


def test_due_records_come_oldest_first_with_all_that_publishing_needs(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending("late"), 3)
    desk.tasks.schedule(desk.sending("early"), 2)
    desk.tasks.schedule(desk.sending("future"), 4)
    desk.wait(3)

    total, due = desk.tasks.due([SHARD, SHARD + 1], 100)

    assert total == 2
    assert [d.task_id for d in due] == ["early", "late"]
    assert (due[0].queue, due[0].actor, due[0].body, due[0].published) == ("default", "act", b"body of early", 0)


def test_a_listing_is_limited_in_number_and_in_bytes(desk: Desk) -> None:
    for i in range(5):
        desk.tasks.schedule(Sending(f"t{i}", SHARD, "default", "act", b"x" * 1000), 0)
    assert len(desk.due(2)) == 2

    keys, runner = desk.store.keys.shard(SHARD, ""), desk.store.runner
    few = runner.run(script("due"), keys, (NOW, 100, 2500))
    assert (few[0], len(few[1]) // 9) == (5, 2)
    one = runner.run(script("due"), keys, (NOW, 100, 10))  # A body above the limit goes alone.
    assert len(one[1]) // 9 == 1


def test_looking_at_what_is_due_changes_nothing(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    before = desk.record()
    assert desk.due() == desk.due()
    assert desk.record() == before


def test_a_published_record_is_due_again_with_doubling_grace(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    assert desk.record().status == "scheduled"

    for grace in (30, 60, 120, 240, 480, 960, 1800, 1800):
        desk.published()
        assert desk.record().status == "queued"
        desk.wait(grace - 0.001)
        assert desk.due() == []
        desk.wait(0.001)
        assert [due.task_id for due in desk.due()] == ["t"]

    assert desk.due()[0].published == 8
    assert desk.record().sticky
    assert desk.count("published") == 8


def test_a_copy_published_twice_after_a_crash_in_between_runs_once(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    (first,) = desk.due()
    (second,) = desk.due()
    assert first.fence == second.fence

    claim = desk.claim("w1", seen=first.fence)
    assert desk.claim("w2", seen=second.fence).verdict is Verdict.BUSY
    desk.commit(claim.fence)
    assert desk.claim("w2", seen=second.fence).verdict is Verdict.SETTLED


def test_marking_leaves_a_record_alone_that_was_claimed_or_moved_on(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    (due,) = desk.due()
    desk.claim("w1", seen=due.fence)
    before = desk.record()
    desk.tasks.mark_published([due], 30, 1800)
    assert desk.record() == before

    desk.bury("w1")
    before = desk.record()
    desk.tasks.mark_published([due], 30, 1800)
    assert desk.record() == before


# -- schedule ---------------------------------------------------------------------------------------------------------


def test_a_task_is_scheduled_once(desk: Desk) -> None:
    assert desk.tasks.schedule_many([(desk.sending(), 1), (desk.sending(), 1), (desk.sending("u"), 1)]) == [
        True,
        False,
        True,
    ]
    assert desk.count("accepted") == 2


@pytest.mark.parametrize("follow_up", [True, False])
def test_the_first_hand_copy_of_a_scheduled_task_waits_for_the_published_one(desk: Desk, follow_up: bool) -> None:
    desk.tasks.schedule(desk.sending(follow_up=follow_up), 5)
    assert desk.record().sticky is follow_up
    assert desk.claim().verdict is Verdict.STALE
    desk.wait(5)
    assert desk.claim(seen=desk.published()).verdict is Verdict.GRANTED


# -- hold, cancel, release --------------------------------------------------------------------------------------------


def mark(desk: Desk, action: str) -> str:
    return desk.tasks.hold("t", action, "somebody", SHARD)[0]


def test_a_held_task_is_not_due_until_it_is_released(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    stamp = desk.published()

    assert mark(desk, "hold") == "held"

    desk.wait(10 * 365 * 86_400)
    assert (desk.due(), desk.record().reason) == ([], "held")
    assert desk.claim(seen=stamp).verdict is Verdict.STALE
    assert mark(desk, "release") == "released"
    assert desk.record().reason == ""
    assert desk.claim(seen=desk.published()).verdict is Verdict.GRANTED


def test_a_running_task_is_not_marked_but_its_owner_is_named(desk: Desk) -> None:
    fence = desk.run("w1")
    for action in ("hold", "cancel", "release"):
        assert desk.tasks.hold("t", action, "somebody", SHARD) == ("running", "w1", fence)


def test_a_task_cancelled_before_its_copy_came_is_settled(desk: Desk) -> None:
    unclaimed_before = NOW + 1
    for _ in range(2):
        assert desk.tasks.hold("t", "cancel", "somebody", SHARD, unclaimed_before)[0] == "cancelled"
    assert desk.claim().verdict is Verdict.SETTLED
    assert (desk.count("accepted"), desk.count("discarded:cancelled")) == (1, 1)


@pytest.mark.parametrize("since", [0, NOW])
def test_a_task_that_may_have_run_and_been_forgotten_is_only_marked(desk: Desk, since: int) -> None:
    desk.settle(desk.run(task="other"), "other", confirmed=True)
    for _ in range(2):
        assert desk.tasks.hold("t", "cancel", "somebody", SHARD, since)[0] == "marked"
    assert (desk.count("accepted"), desk.count("discarded")) == (1, 0)
    assert desk.claim().verdict is Verdict.SETTLED
    assert (desk.count("accepted"), desk.count("discarded:cancelled")) == (2, 1)


def test_a_waiting_task_is_cancelled(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    stamp = desk.published()
    assert mark(desk, "cancel") == "cancelled"
    assert desk.claim(seen=stamp).verdict is Verdict.SETTLED
    assert (mark(desk, "cancel"), mark(desk, "release")) == ("cancelled", "ended")


def test_a_dead_letter_is_cancelled(desk: Desk) -> None:
    desk.fail(desk.run())
    assert mark(desk, "cancel") == "cancelled"
    assert desk.record().status == "discarded"
    assert (desk.count("dlq_left"), desk.store.live()["dead_letters"]) == (1, 0)


def test_a_released_dead_letter_runs_again_with_fresh_attempts_and_its_crashes(desk: Desk) -> None:
    desk.crash("w1")
    desk.fail(desk.claim("w2", seen=desk.published()).fence, "w2")

    assert mark(desk, "release") == "released"

    record = desk.record()
    assert (record.state, record.attempt, record.crashes, record.outcome) == ("s", 0, 1, "")
    assert [run.outcome for run in record.runs] == ["crashed", "failed", "released"]
    assert desk.commit(desk.claim("w3", seen=desk.published()).fence, "w3")
    assert (desk.count("dead"), desk.count("dlq_left"), desk.count("completed")) == (1, 1, 1)


def test_an_ended_or_unknown_task_is_not_marked(desk: Desk) -> None:
    assert (mark(desk, "hold"), mark(desk, "release")) == ("unknown", "unknown")
    desk.commit(desk.run())
    assert {mark(desk, action) for action in ("hold", "cancel", "release")} == {"ended"}


# -- dead_letter ------------------------------------------------------------------------------------------------------


def test_a_copy_that_cannot_be_claimed_becomes_a_dead_letter_with_its_raw_body(desk: Desk) -> None:
    assert desk.tasks.dead_letter(desk.sending(), "PayloadIntegrityError", b"encoded")
    record = desk.record()
    assert (record.state, record.reason, record.body) == ("d", "PayloadIntegrityError", b"body of t")
    assert desk.claim().verdict is Verdict.SETTLED
    assert not desk.tasks.dead_letter(desk.sending(), "PayloadIntegrityError", b"encoded")


def test_a_waiting_task_that_cannot_be_published_becomes_a_dead_letter(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    assert desk.tasks.dead_letter(desk.sending(), "PayloadIntegrityError", b"encoded")
    assert (desk.state(), desk.due()) == ("d", [])


def test_a_running_task_does_not_become_a_dead_letter_by_another_copy(desk: Desk) -> None:
    desk.run()
    assert not desk.tasks.dead_letter(desk.sending(), "ActorNotFound", b"")


# -- groups (R7) ------------------------------------------------------------------------------------------------------


def test_a_group_counts_members_and_a_replayed_member_once(desk: Desk) -> None:
    assert desk.tasks.group_join("g", "a", 1000) == (0, -1)
    desk.tasks.group_create("g", 2, 60_000)
    assert desk.tasks.group_join("g", "a", 60_000) == (1, 2)
    assert desk.tasks.group_join("g", "a", 60_000) == (1, 2)
    desk.tasks.group_create("g", 9, 60_000)
    assert desk.tasks.group_join("g", "b", 60_000) == (2, 2)
    assert desk.tasks.group_join("g", "a", 60_000) == (2, 2)
    assert 0 < desk.client.pttl(desk.store.keys.group("g")) <= 60_000
