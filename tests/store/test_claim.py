"""Who may run a copy: one example for each verdict of a claim."""

from __future__ import annotations

import pytest

from relier.store import Claim, Suspicion, Verdict
from tests.store.desk import NOW, Desk

# -- no record --------------------------------------------------------------------------------------------------------


def test_the_first_copy_of_a_task_is_granted_and_the_store_keeps_its_body(desk: Desk) -> None:
    claim = desk.claim()

    assert claim == Claim(Verdict.GRANTED, NOW)
    record = desk.record()
    assert (record.state, record.owner, record.fence, record.body) == ("r", "w1", NOW, b"body of t")
    assert not record.sticky
    assert desk.count("accepted") == 1


def test_fences_of_microseconds_are_exact(desk: Desk) -> None:
    fences = [desk.run(task=f"t{i}") for i in range(50)]

    assert fences == [NOW + i for i in range(50)]
    assert [desk.record(f"t{i}").fence for i in range(50)] == fences
    assert desk.commit(fences[7], task="t7")
    assert not desk.commit(fences[7], task="t8")


def test_a_fence_rises_even_when_the_clock_is_set_back(desk: Desk) -> None:
    first = desk.run(task="a")
    desk.wait(-3600)
    assert desk.run(task="b") == first + 1


def test_a_fence_in_a_copy_raises_the_floor(desk: Desk) -> None:
    assert desk.run(seen=NOW + 500) == NOW + 501
    assert desk.run(task="u") == NOW + 502


def test_a_copy_that_the_store_published_and_knows_no_more_is_settled(desk: Desk) -> None:
    floor = desk.run(task="another")

    assert desk.claim(seen=floor).verdict is Verdict.SETTLED
    assert desk.find() is None


def test_a_copy_with_a_fence_that_the_store_never_gave_runs_because_the_store_lost_data(desk: Desk) -> None:
    floor = desk.run(task="another")

    claim = desk.claim(seen=floor + 1)

    assert claim.verdict is Verdict.GRANTED
    assert claim.fence == floor + 2
    assert desk.record().sticky
    assert desk.events() == ["unknown copy"]


def test_a_follow_up_is_remembered_since_a_replay_may_send_it_again(desk: Desk) -> None:
    desk.run(follow_up=True)
    assert desk.record().sticky


# -- running ----------------------------------------------------------------------------------------------------------


def test_a_claim_repeated_after_a_lost_reply_gets_the_same_grant(desk: Desk) -> None:
    first = desk.claim(nonce=b"n")
    desk.wait(1)
    assert desk.claim(nonce=b"n") == first
    assert desk.count("accepted") == 1


@pytest.mark.parametrize("worker", ["w1", "w2"])
def test_a_second_copy_of_a_running_task_is_busy_and_makes_the_record_sticky(desk: Desk, worker: str) -> None:
    fence = desk.run()

    assert desk.claim(worker).verdict is Verdict.BUSY
    assert (desk.record().owner, desk.record().fence, desk.record().sticky) == ("w1", fence, True)


def test_a_refusal_tells_for_how_long_the_store_has_had_the_task(desk: Desk) -> None:
    desk.run("w1")
    young = desk.claim("w2")
    desk.wait(600)
    old = desk.claim("w2")
    desk.wait(-7200)
    back = desk.claim("w2")

    assert [claim.verdict for claim in (young, old, back)] == [Verdict.BUSY] * 3
    assert 0 <= young.age < 1
    assert 600 <= old.age < 601
    assert back.age == 0


def test_a_worker_in_the_dead_set_is_fenced(desk: Desk) -> None:
    desk.bury("w1")
    assert desk.claim("w1").verdict is Verdict.FENCED
    assert desk.find() is None


def test_the_repeated_claim_of_a_worker_that_was_buried_meanwhile_is_fenced(desk: Desk) -> None:
    desk.claim(nonce=b"n")
    desk.bury()
    assert desk.claim(nonce=b"n").verdict is Verdict.FENCED


def test_a_run_whose_owner_is_being_buried_is_taken_over_as_one_crash(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relier.store.sweeping.BATCH", 1)
    first = desk.run(task="a")
    desk.run(task="b")
    assert desk.bury().left == 1

    claim = desk.claim("w2", "b")

    assert claim.verdict is Verdict.TAKEN_OVER
    assert claim.crashes == 1
    assert claim.fence > first
    assert desk.bury().left == 0
    assert (desk.record("b").owner, desk.record("b").crashes, desk.record("b").sticky) == ("w2", 1, True)


def test_a_take_over_beyond_the_limit_makes_a_dead_letter(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relier.store.sweeping.BATCH", 1)
    desk.run(task="a")
    desk.run(task="b", max_resurrections=0)
    desk.bury()

    claim = desk.claim("w2", "b")
    assert (claim.verdict, claim.crashes) == (Verdict.SETTLED, 1)
    assert (desk.state("b"), desk.record("b").reason) == ("d", "max_resurrections_exceeded")
    again = desk.claim("w2", "b")
    assert (again.verdict, again.crashes) == (Verdict.SETTLED, 0)


def test_a_copy_with_a_higher_fence_runs_even_if_the_record_says_running(desk: Desk) -> None:
    fence = desk.run("w1")

    claim = desk.claim("w2", seen=fence + 9)

    assert claim.verdict is Verdict.GRANTED
    assert claim.fence == fence + 10
    assert desk.record().owner == "w2"
    assert not desk.commit(fence)
    assert "store lost data" in desk.events()


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_the_copy_that_the_store_published_is_granted_and_an_older_one_is_stale(desk: Desk) -> None:
    desk.fail(desk.run(), retry=True)
    desk.wait(5)
    stamp = desk.published()

    assert desk.claim("w2", seen=0).verdict is Verdict.STALE
    assert desk.claim("w2", seen=stamp - 1).verdict is Verdict.STALE
    claim = desk.claim("w2", seen=stamp)
    assert (claim.verdict, claim.attempt) == (Verdict.GRANTED, 1)
    assert desk.claim("w3", seen=stamp).verdict is Verdict.BUSY


def test_a_waiting_task_whose_record_is_older_than_the_copy_runs(desk: Desk) -> None:
    fence = desk.run()
    desk.fail(fence, retry=True)
    assert desk.claim("w2", seen=fence + 1).verdict is Verdict.GRANTED


# -- ended ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["completed", "discarded", "dead"])
def test_a_copy_of_an_ended_task_is_settled_even_under_a_higher_fence(desk: Desk, how: str) -> None:
    fence = desk.run()
    if how == "completed":
        desk.commit(fence)
    elif how == "discarded":
        desk.tasks.discard("w1", desk.sending(), fence, "skipped")
    else:
        desk.fail(fence)

    assert desk.claim("w2").verdict is Verdict.SETTLED
    if how != "dead":
        assert desk.claim("w2", seen=fence + 100).verdict is Verdict.SETTLED


def test_a_released_dead_letter_that_the_store_forgot_to_have_released_runs(desk: Desk) -> None:
    fence = desk.run()
    desk.fail(fence)

    claim = desk.claim("w2", seen=fence + 100)

    assert claim.verdict is Verdict.GRANTED
    assert desk.store.live()["dead_letters"] == 0
    assert desk.fail(claim.fence, "w2") == "dead"
    assert (desk.state(), desk.count("dead"), desk.count("dlq_left")) == ("d", 2, 1)


def test_pending_hooks_of_a_living_owner_are_busy(desk: Desk) -> None:
    desk.commit(desk.run(), hooks=True)
    assert desk.claim("w2").verdict is Verdict.BUSY
    assert desk.record().owner == "w1"


@pytest.mark.parametrize("outcome", ["completed", "dead"])
def test_pending_hooks_of_a_dead_owner_are_replayed_with_the_stored_result(desk: Desk, outcome: str) -> None:
    fence = desk.run()
    if outcome == "completed":
        desk.commit(fence, hooks=True, result=b"42")
    else:
        desk.fail(fence, hooks=True)
    desk.bury()

    claim = desk.claim("w2", seen=desk.published(), nonce=b"n")

    assert (claim.verdict, claim.outcome) == (Verdict.REPLAY, outcome)
    assert claim.result == (b"42" if outcome == "completed" else b"encoded")
    assert claim.fence > fence
    assert desk.claim("w2", nonce=b"n") == claim
    assert desk.claim("w3").verdict is Verdict.BUSY
    assert desk.count("replays") == 1


# -- suspects (R9) ----------------------------------------------------------------------------------------------------


def test_the_first_crash_is_forgiven_and_the_second_makes_a_suspect(desk: Desk) -> None:
    desk.crash("w1")
    assert (desk.record().crashes, desk.record().suspect) == (1, False)
    desk.crash("w2")
    assert (desk.record().crashes, desk.record().suspect) == (2, True)


def test_a_task_with_one_resurrection_is_a_suspect_at_once(desk: Desk) -> None:
    desk.run(max_resurrections=1)
    desk.bury()
    assert desk.record().suspect


def test_a_suspect_without_a_free_slot_waits_in_the_store(desk: Desk) -> None:
    desk.crash("w1")
    desk.crash("w2")
    stamp = desk.published()

    assert desk.claim("w3", seen=stamp, slot=False).verdict is Verdict.HELD

    assert desk.state() == "s"
    assert desk.due() == []
    desk.wait(0.25)
    (due,) = desk.due()
    assert due.suspicion is Suspicion.SUSPECT
    assert desk.claim("w3", seen=stamp).verdict is Verdict.STALE
    claim = desk.claim("w3", seen=due.fence)
    assert (claim.verdict, claim.suspect) == (Verdict.GRANTED, True)


def test_a_task_that_a_takeover_makes_a_suspect_waits_for_a_copy_that_says_so(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relier.store.sweeping.BATCH", 1)
    desk.run(task="a")
    desk.run(task="b", max_resurrections=1)
    desk.bury()

    assert desk.claim("w2", "b", slot=True).verdict is Verdict.HELD
    assert (desk.state("b"), desk.record("b").crashes) == ("s", 1)


# -- traces -----------------------------------------------------------------------------------------------------------


def test_a_claim_tells_the_trace_context_of_the_run_before(desk: Desk) -> None:
    assert desk.claim(span="first").span == ""
    desk.bury("w1")
    again = desk.claim("w2", span="second", seen=desk.record().fence)
    assert (again.verdict, again.span) == (Verdict.GRANTED, "first")
    desk.fail(again.fence, "w2", retry=True)
    desk.wait(1000)
    third = desk.claim("w2", span="third", seen=desk.record().fence)
    assert (third.verdict, third.attempt, third.span) == (Verdict.GRANTED, 1, "second")
    desk.bury("w2")
    assert desk.claim("w3", seen=desk.record().fence).span == "third", "its own is empty: it makes no traces"
    desk.bury("w3")
    assert desk.claim("w4", seen=desk.record().fence).span == ""
