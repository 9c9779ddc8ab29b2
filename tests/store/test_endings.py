"""How a run is closed: commit, fail, discard, hand over."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from relier.store import Verdict
from tests.store.desk import SHARD, Desk

Close = Callable[[Desk, int], object]

CLOSINGS: dict[str, Close] = {
    "commit": lambda desk, fence: desk.commit(fence),
    "commit with hooks": lambda desk, fence: desk.commit(fence, hooks=True),
    "fail": lambda desk, fence: desk.fail(fence) == "dead",
    "retry": lambda desk, fence: desk.fail(fence, retry=True) == "retry",
    "discard": lambda desk, fence: desk.tasks.discard("w1", desk.sending(), fence, "skipped"),
    "hand over": lambda desk, fence: desk.tasks.hand_over("w1", desk.sending(), fence, "drain"),
}
closings = pytest.mark.parametrize("close", CLOSINGS.values(), ids=CLOSINGS.keys())

# -- every closing call -----------------------------------------------------------------------------------------------


@closings
def test_an_overtaken_run_changes_nothing(desk: Desk, close: Close) -> None:
    fence = desk.run("w1")
    desk.bury("w1")
    before = desk.record()

    assert not close(desk, fence)

    assert desk.record() == before


@closings
def test_a_run_that_was_overtaken_by_another_one_changes_nothing(desk: Desk, close: Close) -> None:
    fence = desk.run("w1")
    desk.bury("w1")
    desk.claim("w2", seen=desk.published())
    before = desk.record()

    assert not close(desk, fence)

    assert (desk.record(), before.owner) == (before, "w2")


@closings
def test_a_living_workers_run_that_the_store_lost_is_taken_back(desk: Desk, close: Close) -> None:
    fence = desk.run()
    desk.client.flushall()

    assert close(desk, fence)

    assert "adopted" in desk.events()
    assert desk.count("accepted") == 1
    assert desk.record().sticky


@closings
def test_a_dead_workers_run_that_the_store_lost_is_not_taken_back(desk: Desk, close: Close) -> None:
    fence = desk.run()
    desk.client.flushall()
    desk.bury()

    assert not close(desk, fence)
    assert desk.find() is None


# -- commit -----------------------------------------------------------------------------------------------------------


def test_a_commit_without_hooks_ends_the_task_and_drops_its_body(desk: Desk) -> None:
    assert desk.commit(desk.run())

    record = desk.record()
    assert (record.state, record.status, record.owner, record.body) == ("e", "completed", "", b"")
    assert desk.count("completed") == 1


def test_a_commit_with_hooks_keeps_the_task_with_its_owner_until_they_are_done(desk: Desk) -> None:
    fence = desk.run()

    assert desk.commit(fence, hooks=True, result=b"42")

    record = desk.record()
    assert (record.state, record.status, record.owner, record.fence) == ("h", "completed", "w1", fence)
    assert (record.result, record.body) == (b"42", b"body of t")


@pytest.mark.parametrize("hooks", [True, False])
def test_a_repeated_commit_is_accepted_again_and_counted_once(desk: Desk, hooks: bool) -> None:
    fence = desk.run()
    assert desk.commit(fence, hooks=hooks)
    assert desk.commit(fence, hooks=hooks)
    assert desk.count("completed") == 1


def test_a_refused_commit_is_counted_and_told(desk: Desk) -> None:
    fence = desk.run("w1")
    desk.bury("w1")
    desk.commit(fence)
    assert desk.count("refused") == 1
    assert desk.events()[-1] == "refused"


def test_a_commit_of_a_worker_that_is_declared_dead_but_not_yet_buried_here_counts(desk: Desk) -> None:
    fence = desk.run("w1")
    assert desk.commit(fence, hooks=True)
    desk.bury("w1")
    assert desk.claim("w2", seen=desk.published()).verdict is Verdict.REPLAY
    assert desk.count("completed") == 1


# -- fail -------------------------------------------------------------------------------------------------------------


def test_a_retry_is_scheduled_in_the_same_step(desk: Desk) -> None:
    fence = desk.run()

    assert desk.fail(fence, retry=True, delay=5) == "retry"

    record = desk.record()
    assert (record.state, record.fence, record.attempt, record.owner) == ("s", fence, 1, "")
    assert record.status == "scheduled"
    assert [run.outcome for run in record.runs] == ["failed"]
    assert desk.due() == []
    desk.wait(5)
    assert [due.task_id for due in desk.due()] == ["t"]


def test_a_failure_that_does_not_count_leaves_the_attempts(desk: Desk) -> None:
    desk.fail(desk.run(), retry=True, counts=False)
    assert desk.record().attempt == 0


def test_a_final_failure_makes_a_dead_letter_with_all_that_is_known(desk: Desk) -> None:
    assert desk.fail(desk.run()) == "dead"

    record = desk.record()
    assert (record.state, record.status, record.reason, record.fingerprint) == ("d", "dead", "ValueError", "print")
    assert (record.result, record.body, record.attempt) == (b"encoded", b"body of t", 1)
    assert [letter[0] for letter in desk.store.dead_letters(9)] == ["t"]


def test_a_final_failure_with_hooks_is_in_the_dlq_at_once_and_owned_until_they_are_done(desk: Desk) -> None:
    fence = desk.run()
    assert desk.fail(fence, hooks=True) == "dead"
    assert (desk.state(), desk.record().owner, desk.store.live()["dead_letters"]) == ("h", "w1", 1)

    desk.settle(fence, confirmed=True)

    assert (desk.state(), desk.record().owner, desk.record().reason) == ("d", "", "ValueError")


@pytest.mark.parametrize("hooks", [True, False])
@pytest.mark.parametrize("retry", [True, False])
def test_a_repeated_failure_gets_its_first_verdict(desk: Desk, retry: bool, hooks: bool) -> None:
    fence = desk.run()
    first = desk.fail(fence, retry=retry, hooks=hooks)
    before = desk.record()
    assert desk.fail(fence, retry=retry, hooks=hooks) == first
    assert desk.record() == before
    assert desk.count("failed") == 1


def test_a_failure_after_a_commit_is_refused(desk: Desk) -> None:
    fence = desk.run()
    desk.commit(fence)
    assert desk.fail(fence) == "refused"
    assert desk.record().status == "completed"


# -- identical failures -----------------------------------------------------------------------------------------------


def fail_again(desk: Desk, fingerprint: str = "same", *, counts: bool = True, hooks: bool = False) -> str:
    """Let the task's next run fail, which asks for a retry; returns the verdict."""
    seen = desk.published() if desk.find() else 0
    verdict = desk.fail(
        desk.run(seen=seen), retry=True, delay=0, counts=counts, hooks=hooks, fingerprint=fingerprint, limit=3
    )
    desk.wait(1)
    return verdict


def test_the_third_identical_failure_in_a_row_makes_a_dead_letter(desk: Desk) -> None:
    assert [fail_again(desk) for _ in range(3)] == ["retry", "retry", "dead"]

    record = desk.record()
    assert (record.state, record.reason, record.attempt, record.identical) == ("d", "ValueError", 3, 3)
    assert (desk.count("retries"), desk.count("failed"), desk.count("stopped_identical")) == (2, 3, 1)
    assert "identical failures" in desk.events()
    assert desk.due() == []


def test_another_failure_in_between_begins_a_new_row(desk: Desk) -> None:
    prints = ["one", "one", "two", "one", "one", "one"]
    assert [fail_again(desk, fingerprint) for fingerprint in prints] == ["retry"] * 5 + ["dead"]


def test_a_failure_that_does_not_count_neither_breaks_nor_lengthens_the_row(desk: Desk) -> None:
    verdicts = []
    for _ in range(3):
        verdicts += [fail_again(desk, "limited", counts=False) for _ in range(3)] + [fail_again(desk)]
    assert verdicts == ["retry"] * 11 + ["dead"]
    assert desk.record().fingerprint == "same"


def test_a_crash_a_hand_over_and_a_lost_reply_in_between_leave_the_row(desk: Desk) -> None:
    fail_again(desk)
    desk.claim("w2", seen=desk.published())
    desk.bury("w2")
    fence = desk.run("w3", seen=desk.published())
    desk.tasks.hand_over("w3", desk.sending(), fence, "drain")
    fence = desk.run("w3", seen=desk.published())
    again = [desk.fail(fence, "w3", retry=True, delay=0, fingerprint="same", limit=3) for _ in range(3)]
    assert again == ["retry"] * 3
    assert desk.record().identical == 2

    assert fail_again(desk) == "dead"


def test_a_repeated_call_is_told_again_that_the_task_was_stopped(desk: Desk) -> None:
    for _ in range(2):
        fail_again(desk)
    fence = desk.run(seen=desk.published())
    again = [desk.fail(fence, retry=True, hooks=True, fingerprint="same", limit=3) for _ in range(2)]
    assert again == ["dead", "dead"]
    assert (desk.state(), desk.record().owner, desk.count("stopped_identical")) == ("h", "w1", 1)


def test_a_released_task_begins_a_new_row(desk: Desk) -> None:
    for _ in range(3):
        fail_again(desk)
    desk.tasks.hold("t", "release", "me", SHARD)
    assert desk.record().identical == 0
    assert [fail_again(desk) for _ in range(3)] == ["retry", "retry", "dead"]


def test_a_series_that_may_go_on_says_how_long_it_was_identical(desk: Desk) -> None:
    desk.fail(desk.run(), retry=True, delay=0, fingerprint="same")
    for _ in range(4):
        desk.fail(desk.run(seen=desk.published()), retry=True, delay=0, fingerprint="same")
    desk.fail(desk.run(seen=desk.published()), fingerprint="same")
    assert (desk.record().status, desk.record().identical, desk.count("stopped_identical")) == ("dead", 6, 0)


# -- discard ----------------------------------------------------------------------------------------------------------


def test_a_run_is_discarded_with_its_reason(desk: Desk) -> None:
    fence = desk.run()
    for _ in range(2):
        assert desk.tasks.discard("w1", desk.sending(), fence, "skipped")
    assert (desk.record().status, desk.record().reason) == ("discarded", "skipped")
    assert (desk.count("discarded"), desk.count("discarded:skipped")) == (1, 1)


def test_a_copy_that_was_never_claimed_is_discarded(desk: Desk) -> None:
    for _ in range(2):
        assert desk.tasks.discard("w1", desk.sending(), 0, "max_age")
    assert desk.claim().verdict is Verdict.SETTLED
    assert (desk.count("accepted"), desk.count("discarded")) == (1, 1)


def test_a_waiting_task_is_discarded_by_whoever_did_not_claim_its_copy(desk: Desk) -> None:
    desk.fail(desk.run(), retry=True)
    assert desk.tasks.discard("w2", desk.sending(), 0, "max_age")
    assert desk.record().status == "discarded"


def test_a_running_task_is_not_discarded_by_the_holder_of_another_copy(desk: Desk) -> None:
    desk.run("w1")
    assert not desk.tasks.discard("w2", desk.sending(), 0, "max_age")
    assert desk.state() == "r"


def test_a_completed_task_is_not_discarded(desk: Desk) -> None:
    fence = desk.run()
    desk.commit(fence)
    assert not desk.tasks.discard("w1", desk.sending(), fence, "skipped")


# -- hand over --------------------------------------------------------------------------------------------------------


def test_a_task_that_is_handed_over_is_due_at_once_and_neither_failed_nor_crashed(desk: Desk) -> None:
    fence = desk.run()

    assert desk.tasks.hand_over("w1", desk.sending(), fence, "drain")

    record = desk.record()
    assert (record.state, record.attempt, record.crashes, record.sticky) == ("s", 0, 0, True)
    assert record.fence > fence
    assert desk.claim("w2", seen=desk.published()).verdict is Verdict.GRANTED
    assert not desk.tasks.hand_over("w1", desk.sending(), fence, "drain")
