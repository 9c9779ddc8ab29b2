"""One job key, several tasks: the newest wins, wherever the older one is, and whatever the store has forgotten."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import redis

from relier.store import Custody, Failure, JobTerms, Record, Sending, Verdict
from tests.store.desk import SHARD, Desk

JOB = "job-digest"
ENTRY = f"rl:relier:{{{SHARD:02d}}}:job:{JOB}"
PUSHED = JobTerms(300.0, published=True)


def sending(desk: Desk, task: str, rank: int = 0, **more: Any) -> Sending:
    return desk.sending(task, job=JOB, rank=rank, **more)


def push(desk: Desk, task: str, terms: JobTerms = PUSHED, **more: Any) -> Custody:
    return desk.tasks.push_many([(sending(desk, task, **more), terms)])[0]


def claim(desk: Desk, task: str, rank: int = 0, seen: int = 0, worker: str = "w1") -> Verdict:
    return desk.claim(worker, task, seen, job=JOB, rank=rank).verdict


def run(desk: Desk, task: str, rank: int = 0, seen: int = 0, worker: str = "w1") -> int:
    granted = desk.claim(worker, task, seen, job=JOB, rank=rank)
    assert granted.verdict is Verdict.GRANTED, granted
    return granted.fence


def commit(desk: Desk, task: str, fence: int, worker: str = "w1") -> bool:
    return desk.tasks.commit(worker, sending(desk, task), fence, hooks=False)


def superseded(desk: Desk, task: str) -> Record:
    record = desk.record(task)
    assert (record.state, record.outcome, record.reason) == ("e", "discarded", "superseded")
    return record


def test_a_first_hand_copy_runs_and_leaves_nothing_once_it_is_settled(desk: Desk) -> None:
    pushed = push(desk, "t1")
    assert desk.record("t1").status == "queued"
    assert pushed.rank and not pushed.superseded
    fence = run(desk, "t1", pushed.rank)
    assert commit(desk, "t1", fence)
    desk.settle(fence, "t1", confirmed=True)
    assert desk.find("t1") is None
    assert not desk.client.exists(ENTRY)


def test_what_its_producer_did_not_publish_a_sweeper_does(desk: Desk) -> None:
    rank = push(desk, "t1").rank
    assert not desk.due()
    desk.wait(301)
    fence = desk.published("t1")
    assert commit(desk, "t1", run(desk, "t1", seen=fence))
    assert claim(desk, "t1", rank) is Verdict.SETTLED


def test_a_push_that_the_broker_refused_is_published_at_once(desk: Desk) -> None:
    rank = push(desk, "t1").rank
    assert push(desk, "t1", replace(PUSHED, delay=0.0)) == Custody(rank)
    assert [due.task_id for due in desk.due()] == ["t1"]
    assert desk.count("accepted") == 1


def test_the_newest_supersedes_what_waits(desk: Desk) -> None:
    first = push(desk, "t1")
    second = push(desk, "t2")
    assert (second.superseded, second.owner) == ("t1", "")
    assert second.rank > first.rank
    superseded(desk, "t1")
    assert claim(desk, "t1", first.rank) is Verdict.SETTLED
    run(desk, "t2", second.rank)
    assert desk.count("discarded:superseded") == 1


def test_the_newest_supersedes_what_is_delayed(desk: Desk) -> None:
    push(desk, "t1", JobTerms(60.0))
    assert desk.record("t1").status == "scheduled"
    push(desk, "t2", JobTerms(60.0))
    desk.wait(61)
    assert [due.task_id for due in desk.due()] == ["t2"]


def test_the_newest_supersedes_what_waits_for_a_retry(desk: Desk) -> None:
    first = push(desk, "t1")
    fence = run(desk, "t1", first.rank)
    assert desk.fail(fence, task="t1", retry=True) == "retry"
    push(desk, "t2")
    superseded(desk, "t1")
    desk.wait(60)
    assert not desk.due()


@pytest.mark.parametrize("cancels", [True, False])
def test_an_older_one_that_runs_can_no_longer_complete(desk: Desk, cancels: bool) -> None:
    fence = run(desk, "t1", push(desk, "t1").rank)
    second = push(desk, "t2", replace(PUSHED, cancels=cancels))
    assert (second.superseded, second.owner) == ("t1", "w1")
    assert not commit(desk, "t1", fence)
    assert desk.tasks.fail("w1", sending(desk, "t1"), fence, _failure()) == ("refused" if cancels else "discarded")
    assert commit(desk, "t2", run(desk, "t2", second.rank, worker="w2"), "w2")
    superseded(desk, "t1")


def test_its_worker_finds_a_run_lost_that_is_to_be_cancelled_even_if_nobody_tells(desk: Desk) -> None:
    fence = run(desk, "t1", push(desk, "t1").rank)
    push(desk, "t2")
    snapshot = desk.tasks.begin_snapshot()
    assert desk.tasks.reconcile("w1", snapshot, {SHARD: [("t1", fence)]}).lost == ("t1",)


def test_its_worker_leaves_a_run_alone_that_may_finish(desk: Desk) -> None:
    fence = run(desk, "t1", push(desk, "t1").rank)
    push(desk, "t2", replace(PUSHED, cancels=False))
    snapshot = desk.tasks.begin_snapshot()
    found = desk.tasks.reconcile("w1", snapshot, {SHARD: [("t1", fence)]})
    assert not (found.lost or found.missing or found.released)


def test_the_newest_ends_a_dead_letter(desk: Desk) -> None:
    desk.fail(run(desk, "t1", push(desk, "t1").rank), task="t1")
    assert push(desk, "t2").superseded == "t1"
    superseded(desk, "t1")
    assert desk.store.live()["dead_letters"] == 0


def test_the_end_of_a_dead_letter_is_known_though_its_last_run_is_settled_late(desk: Desk) -> None:
    fence = run(desk, "t1", push(desk, "t1").rank)
    desk.fail(fence, task="t1")
    push(desk, "t2")
    desk.settle(fence, "t1", confirmed=True)
    superseded(desk, "t1")


@pytest.mark.parametrize("hooks", [False, True])
def test_a_dead_letter_may_refuse_a_push(desk: Desk, hooks: bool) -> None:
    desk.fail(run(desk, "t1", push(desk, "t1").rank), task="t1", hooks=hooks)
    refused = push(desk, "t2", replace(PUSHED, refuses=True))
    assert (refused.refused_by, refused.reason) == ("t1", "ValueError")
    assert desk.find("t2") is None
    assert desk.record("t1").outcome == "dead"


def test_a_dead_letter_whose_hooks_still_run_is_never_released_after_a_newer_push(desk: Desk) -> None:
    fence = run(desk, "t1", push(desk, "t1").rank)
    desk.fail(fence, task="t1", hooks=True)
    push(desk, "t2")
    desk.settle(fence, "t1", confirmed=True)
    assert desk.state("t1") == "d"
    assert desk.tasks.hold("t1", "release", "me", SHARD)[:2] == ("superseded", "t2")


def test_a_dead_letter_that_is_still_the_newest_can_be_released(desk: Desk) -> None:
    desk.fail(run(desk, "t1", push(desk, "t1").rank), task="t1")
    assert desk.tasks.hold("t1", "release", "me", SHARD)[0] == "released"
    desk.wait(1)
    fence = run(desk, "t1", seen=desk.published("t1"))
    assert push(desk, "t2").superseded == "t1"
    assert not commit(desk, "t1", fence)


def test_a_completed_one_is_left_alone(desk: Desk) -> None:
    fence = run(desk, "t1", push(desk, "t1").rank)
    assert desk.tasks.commit("w1", sending(desk, "t1"), fence, hooks=True, result=b"r")
    assert push(desk, "t2").superseded == ""
    desk.settle(fence, "t1", confirmed=False)
    assert desk.count("discarded") == 0


def test_a_repeated_push_changes_nothing(desk: Desk) -> None:
    first = push(desk, "t1")
    assert push(desk, "t1") == first
    second = push(desk, "t2")
    assert push(desk, "t1") == Custody(0)
    assert desk.record("t2").state == "s"
    assert claim(desk, "t2", second.rank) is Verdict.GRANTED


def test_a_copy_of_a_superseded_task_finds_that_even_when_its_end_is_forgotten(desk: Desk) -> None:
    first, second = push(desk, "t1"), push(desk, "t2")
    assert commit(desk, "t2", run(desk, "t2", second.rank))
    desk.watch(3700)
    assert desk.find("t1") is desk.find("t2") is None
    assert claim(desk, "t1", first.rank) is Verdict.SETTLED
    assert claim(desk, "t2", second.rank) is Verdict.SETTLED
    superseded(desk, "t1")


def test_an_entry_does_not_outlive_its_use(desk: Desk) -> None:
    push(desk, "t1")
    assert desk.client.pttl(ENTRY) == -1
    fence = run(desk, "t2", push(desk, "t2").rank)
    assert desk.client.pttl(ENTRY) == -1
    assert commit(desk, "t2", fence)
    assert 86_400_000 < int(desk.client.pttl(ENTRY)) <= 604_800_000
    push(desk, "t3")
    assert desk.client.pttl(ENTRY) == -1


def test_what_the_store_lost_is_the_newest_again_by_its_rank(desk: Desk) -> None:
    first = push(desk, "t1")
    before = {key: desk.client.dump(key) for key in desk.client.keys("*")}
    desk.wait(1)
    second = push(desk, "t2")
    _roll_back(desk.client, before)
    fence = run(desk, "t2", second.rank)
    superseded(desk, "t1")
    assert claim(desk, "t1", first.rank) is Verdict.SETTLED
    assert commit(desk, "t2", fence)


def test_what_the_store_lost_is_superseded_by_what_was_pushed_since(desk: Desk) -> None:
    before = {key: desk.client.dump(key) for key in desk.client.keys("*")}
    first = push(desk, "t1")
    _roll_back(desk.client, before)
    desk.wait(1)
    second = push(desk, "t2")
    assert claim(desk, "t1", first.rank) is Verdict.SETTLED
    superseded(desk, "t1")
    run(desk, "t2", second.rank)


def test_a_run_that_the_store_lost_gives_way_to_a_newer_one(desk: Desk) -> None:
    before = {key: desk.client.dump(key) for key in desk.client.keys("*")}
    first = push(desk, "t1")
    fence = run(desk, "t1", first.rank)
    _roll_back(desk.client, before)
    desk.wait(1)
    second = push(desk, "t2")
    desk.client.hset(f"rl:relier:{{{SHARD:02d}}}:meta", "floor", 0)
    assert not desk.tasks.adopt("w1", sending(desk, "t1", first.rank), fence)
    superseded(desk, "t1")
    run(desk, "t2", second.rank, worker="w2")


def test_a_run_that_the_store_lost_supersedes_the_older_one_that_came_back(desk: Desk) -> None:
    push(desk, "t1")
    before = {key: desk.client.dump(key) for key in desk.client.keys("*")}
    desk.wait(1)
    second = push(desk, "t2")
    fence = run(desk, "t2", second.rank)
    _roll_back(desk.client, before)
    assert desk.tasks.adopt("w1", sending(desk, "t2", second.rank), fence)
    superseded(desk, "t1")
    assert commit(desk, "t2", fence)


def test_an_older_worker_declines_a_first_hand_copy(desk: Desk) -> None:
    push(desk, "t1")
    assert desk.tasks.decline("w1", sending(desk, "t1"), 0)
    assert run(desk, "t1", seen=desk.published("t1"))


def test_a_cancelled_task_leaves_its_key(desk: Desk) -> None:
    push(desk, "t1")
    assert desk.tasks.hold("t1", "cancel", "me", SHARD)[0] == "cancelled"
    assert push(desk, "t2").superseded == ""


def test_a_follow_up_is_taken_once_and_its_replay_ends_nobody(desk: Desk) -> None:
    assert desk.tasks.schedule(sending(desk, "f1", follow_up=True), 5.0)
    push(desk, "t2")
    assert not desk.tasks.schedule(sending(desk, "f1", follow_up=True), 5.0)
    superseded(desk, "f1")
    assert desk.state("t2") == "s"


def _failure() -> Failure:
    return Failure(False, 0.0, True, False, "ValueError", b"", "ValueError")


def _roll_back(client: redis.Redis, before: dict[Any, Any]) -> None:
    client.flushall()
    for key, value in before.items():
        client.restore(key, 0, value)
