"""One key, several tasks: who runs, who waits, who gets what, and that nobody waits for ever."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from relier.store import Claim, KeyTerms, Verdict, shard_of
from tests.store.desk import SHARD, Desk

TERMS = KeyTerms("k", "wait", False, False, ttl=3600.0, in_flight=120.0, retention=3600.0, result_ttl=3600.0)
JOINS, DROPS = replace(TERMS, on_duplicate="join"), replace(TERMS, on_duplicate="drop")
#: What follows a completion: a callback without and one with need of the result.
FOLLOWED, NEEDY = replace(TERMS, hooks=True), replace(TERMS, hooks=True, needs_result=True)

RESULT = b'{"result": 42}'
MINUTES = 301


def claim(desk: Desk, task: str, worker: str = "w1", seen: int = 0, terms: KeyTerms = TERMS, **more: Any) -> Claim:
    return desk.claim(worker, task, seen, key=terms, **more)


def run(desk: Desk, task: str, worker: str = "w1", seen: int = 0, terms: KeyTerms = TERMS) -> int:
    granted = claim(desk, task, worker, seen, terms)
    assert granted.verdict in (Verdict.GRANTED, Verdict.TAKEN_OVER), granted
    return granted.fence


def commit(
    desk: Desk, task: str, fence: int, worker: str = "w1", terms: KeyTerms = TERMS, result: bytes = RESULT, **more: Any
) -> bool:
    protections = json.dumps({"key": terms.terms(), "res": 3_600_000, **more})
    sending = desk.sending(task, key=terms)
    return desk.tasks.commit(worker, sending, fence, hooks=False, result=result, protections=protections)


def wait_for(desk: Desk, *tasks: str, terms: KeyTerms = TERMS, worker: str = "w2") -> None:
    for task in tasks:
        assert claim(desk, task, worker, terms=terms).verdict is Verdict.HELD
        record = desk.record(task)
        assert (record.reason, record.status) == ("waits for its key", "queued")
        assert record.key_owner not in ("", task)


def ended(desk: Desk, task: str) -> str:
    """Return how a task ended, '' while it has not."""
    record = desk.find(task)
    return record.outcome if record and record.state in "ed" else ""


def result_of(desk: Desk, task: str) -> bytes:
    kept = desk.client.get(f"rl:relier:{{{SHARD:02d}}}:res:{task}")
    assert isinstance(kept, bytes), kept
    return result_of(desk, kept[1:].decode()) if kept[:1] == b"@" else kept[1:]


def test_a_duplicate_of_a_completed_task_gets_its_result_without_running(desk: Desk) -> None:
    assert commit(desk, "a", run(desk, "a"))

    copy = claim(desk, "b", terms=NEEDY)

    assert (copy.verdict, copy.result, copy.outcome) == (Verdict.DUPLICATE, RESULT, "completed")
    assert desk.state("b") == "h"  # Its hooks are left to run, and are replayed when this worker dies.
    desk.bury("w1")
    replay = claim(desk, "b", "w2", desk.published("b"), terms=NEEDY)
    assert (replay.verdict, replay.result) == (Verdict.REPLAY, RESULT)
    desk.settle(replay.fence, "b", confirmed=False)
    assert (ended(desk, "b"), result_of(desk, "b")) == ("completed", RESULT)
    assert desk.count("completed") == 2
    assert desk.count("idempotency_hits") == 1


def test_the_same_call_repeated_gets_the_same_answer(desk: Desk) -> None:
    assert claim(desk, "a", nonce=b"1").fence == claim(desk, "a", nonce=b"1").fence
    commit(desk, "a", desk.record("a").fence)
    first, again = claim(desk, "b", nonce=b"2"), claim(desk, "b", nonce=b"2")
    assert (first.verdict, again.verdict) == (Verdict.DUPLICATE, Verdict.REPLAY)
    assert (first.fence, first.result) == (again.fence, again.result)


def test_waiters_end_with_the_result_at_the_commit(desk: Desk) -> None:
    fence = run(desk, "a")
    wait_for(desk, "b", "c")

    commit(desk, "a", fence)

    assert [ended(desk, task) for task in "bc"] == ["completed", "completed"]
    assert [result_of(desk, task) for task in "abc"] == [RESULT] * 3
    assert desk.count("completed") == 3
    assert (desk.count("duplicates_waited"), desk.count("idempotency_hits")) == (2, 2)
    desk.wait(MINUTES)
    assert desk.due() == []  # Nobody was published, and nobody is looked at again.
    assert claim(desk, "b", "w2").verdict is Verdict.SETTLED  # A late copy.


def test_waiters_with_hooks_are_published_at_the_commit(desk: Desk) -> None:
    fence = run(desk, "a", terms=NEEDY)
    wait_for(desk, "b", terms=NEEDY)
    assert desk.due() == []

    commit(desk, "a", fence, terms=NEEDY)

    copy = claim(desk, "b", "w2", desk.published("b"), terms=NEEDY)
    assert (copy.verdict, copy.result) == (Verdict.DUPLICATE, RESULT)


def test_thousands_of_waiters_are_let_go_a_hundred_at_a_time(desk: Desk) -> None:
    fence = run(desk, "a")
    waiters = [f"b{i}" for i in range(250)]
    wait_for(desk, *waiters)

    commit(desk, "a", fence)

    assert [desk.count("completed"), desk.tasks.due([SHARD], 10)] == [101, (1, [])]  # One more: there is more to do.
    assert [desk.count("completed"), desk.tasks.due([SHARD], 10)] == [201, (0, [])]
    assert desk.count("completed") == 251
    assert all(result_of(desk, waiter) == RESULT for waiter in waiters)


def test_whom_the_list_has_no_place_for_is_looked_at_again_after_minutes(desk: Desk) -> None:
    fence = run(desk, "a")
    wait_for(desk, "b", "c")
    desk.client.delete(f"rl:relier:{{{SHARD:02d}}}:idw:k")
    desk.wait(MINUTES)
    assert desk.due() == []  # Somebody has the key: they go on waiting, in the list again.
    desk.client.delete(f"rl:relier:{{{SHARD:02d}}}:idw:k")
    commit(desk, "a", fence)
    assert ended(desk, "b") == ""

    desk.wait(MINUTES)

    assert desk.due() == []
    assert [ended(desk, task) for task in "bc"] == ["completed", "completed"]


def test_when_the_owner_fails_for_good_one_waiter_goes_on(desk: Desk) -> None:
    fence = run(desk, "a")
    wait_for(desk, "b", "c")

    desk.fail(fence, task="a")

    assert [due.task_id for due in desk.due()] == ["b"]
    wait_for(desk, "d")  # The key is b's already.
    commit(desk, "b", run(desk, "b", "w2", desk.published("b")), "w2")
    assert [ended(desk, task) for task in "abcd"] == ["dead", "completed", "completed", "completed"]


def test_the_key_stays_with_its_task_between_retries(desk: Desk) -> None:
    fence = run(desk, "a")
    desk.fail(fence, task="a", retry=True, delay=500.0)
    desk.wait(400)

    wait_for(desk, "b")

    desk.wait(100)
    commit(desk, "a", run(desk, "a", seen=desk.published("a")))
    assert ended(desk, "b") == "completed"


@pytest.mark.parametrize("how", ["discarded", "cancelled while it waits for its retry", "dead letter"])
def test_however_the_owner_ends_somebody_goes_on(desk: Desk, how: str) -> None:
    fence = run(desk, "a")
    if how != "discarded":
        desk.fail(fence, task="a", retry=True, delay=0.0)
    wait_for(desk, "b")

    if how == "discarded":
        assert desk.tasks.discard("w1", desk.sending("a"), fence, "skipped")
    elif how == "dead letter":
        assert desk.tasks.dead_letter(desk.sending("a"), "PayloadIntegrityError", b"", fence)
    else:
        desk.tasks.hold("a", "cancel", "somebody", SHARD)

    assert [due.task_id for due in desk.due()] == ["b"]


def test_a_waiter_that_got_the_key_passes_it_on_when_it_is_cancelled(desk: Desk) -> None:
    fence = run(desk, "a")
    wait_for(desk, "b", "c", "d")
    desk.tasks.hold("c", "cancel", "somebody", SHARD)
    desk.fail(fence, task="a")

    desk.tasks.hold("b", "cancel", "somebody", SHARD)

    assert [due.task_id for due in desk.due()] == ["d"]


def test_a_dead_owner_keeps_its_key_for_its_next_run(desk: Desk) -> None:
    run(desk, "a")
    wait_for(desk, "b")
    desk.bury("w1")
    desk.wait(119)
    wait_for(desk, "c", worker="w3")

    fence = run(desk, "a", "w2", desk.published("a"))

    desk.wait(1000)  # One that lives keeps it as long as it runs.
    desk.due()
    wait_for(desk, "d", worker="w3")
    commit(desk, "a", fence, "w2")
    assert [ended(desk, task) for task in "abcd"] == ["completed"] * 4


def test_a_dead_owner_that_does_not_come_back_loses_its_key(desk: Desk) -> None:
    run(desk, "a")
    wait_for(desk, "b", "c")
    desk.bury("w1")
    seen = desk.published("a")

    desk.wait(121)

    assert "b" in [due.task_id for due in desk.due()]
    fence = run(desk, "b", "w2", desk.published("b"))
    assert claim(desk, "a", "w3", seen).verdict in (Verdict.HELD, Verdict.STALE)
    commit(desk, "b", fence, "w2")
    assert ended(desk, "c") == "completed"
    assert claim(desk, "d", "w3").verdict is Verdict.DUPLICATE


def test_without_waiters_the_next_duplicate_takes_a_lapsed_key(desk: Desk) -> None:
    run(desk, "a")
    desk.bury("w1")
    seen = desk.published("a")
    desk.wait(121)

    fence = run(desk, "b", "w2")

    assert claim(desk, "a", "w3", seen).verdict is Verdict.HELD
    commit(desk, "b", fence, "w2")
    assert ended(desk, "a") == "completed"


def test_a_fenced_owner_neither_commits_nor_releases(desk: Desk) -> None:
    old = run(desk, "a")
    desk.bury("w1")
    new = run(desk, "a", "w2", desk.published("a"))
    wait_for(desk, "b", worker="w3")

    assert not commit(desk, "a", old, "w1")
    assert desk.fail(old, "w1", "a") == "refused"

    assert ended(desk, "b") == ""
    assert claim(desk, "c", "w3").verdict is Verdict.HELD
    assert commit(desk, "a", new, "w2")
    assert ended(desk, "b") == "completed"


def test_crashes_over_the_limit_pass_the_key_on(desk: Desk) -> None:
    granted = desk.claim("w1", "a", key=TERMS, max_resurrections=0)
    assert granted.fence
    wait_for(desk, "b")

    desk.bury("w1")

    assert desk.state("a") == "d"
    assert [due.task_id for due in desk.due()] == ["b"]


def test_dropped_duplicates_are_discarded_and_counted(desk: Desk) -> None:
    fence = run(desk, "a", terms=DROPS)

    assert claim(desk, "b", "w2", terms=DROPS).verdict is Verdict.SETTLED

    record = desk.record("b")
    assert (record.state, record.outcome, record.reason) == ("e", "discarded", "duplicate")
    assert desk.count("discarded:duplicate") == 1
    commit(desk, "a", fence, terms=DROPS)
    assert claim(desk, "c", "w2", terms=DROPS).verdict is Verdict.DUPLICATE


def test_who_joins_shares_the_end_of_the_owner(desk: Desk) -> None:
    fence = run(desk, "a", terms=JOINS)
    wait_for(desk, "b", terms=JOINS)
    commit(desk, "a", fence, terms=JOINS)
    assert (ended(desk, "b"), result_of(desk, "b")) == ("completed", RESULT)

    other = replace(JOINS, key="other")
    fence = run(desk, "c", terms=other)
    waiters = [f"d{i}" for i in range(150)]
    wait_for(desk, *waiters, terms=other)
    desk.fail(fence, task="c")
    assert desk.count("discarded:duplicate") == 100
    assert desk.due() == []
    assert desk.count("discarded:duplicate") == 150
    assert {ended(desk, waiter) for waiter in waiters} == {"discarded"}
    assert run(desk, "e", "w3", terms=other)


def test_a_result_that_was_not_kept_is_none_for_those_whose_hooks_do_not_need_it(desk: Desk) -> None:
    commit(desk, "a", run(desk, "a"), result=b"", marker="l99")

    plain, followed, needy = (
        claim(desk, task, "w2", terms=terms) for task, terms in zip("bcd", (TERMS, FOLLOWED, NEEDY), strict=True)
    )

    assert (plain.verdict, plain.result) == (followed.verdict, followed.result) == (Verdict.DUPLICATE, b"")
    assert (needy.verdict, needy.outcome) == (Verdict.DUPLICATE, "dead")
    desk.settle(needy.fence, "d", confirmed=False)
    record = desk.record("d")
    assert (record.state, record.reason) == ("d", "ResultMissing")
    assert "was not kept" in record.runs[-1].detail


def test_an_owner_whose_end_was_missed_holds_nobody_up(desk: Desk) -> None:
    run(desk, "a")
    wait_for(desk, "b")
    desk.client.hdel(f"rl:relier:{{{SHARD:02d}}}:rec", "a")
    desk.client.delete(f"rl:relier:{{{SHARD:02d}}}:own:w1")
    desk.client.hincrby(f"rl:relier:{{{SHARD:02d}}}:meta", "accepted", -1)
    forget = "local c = cmsgpack.unpack(redis.call('HGET', KEYS[1], ARGV[1])) c[1] = c[1] - 1"
    forget += " redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(c))"
    desk.client.eval(forget, 1, f"rl:relier:{{{SHARD:02d}}}:st", "default\nact")

    assert run(desk, "c", "w2")

    desk.fail(desk.record("c").fence, "w2", "c")
    assert [due.task_id for due in desk.due()] == ["b"]


def test_a_released_dead_letter_asks_for_the_key_like_anybody(desk: Desk) -> None:
    desk.fail(run(desk, "a"), task="a")
    commit(desk, "b", run(desk, "b"))

    desk.tasks.hold("a", "release", "somebody", SHARD)

    assert claim(desk, "a", seen=desk.published("a")).verdict is Verdict.DUPLICATE


def test_a_completion_counts_for_its_time_only(desk: Desk) -> None:
    short = replace(TERMS, ttl=0.05)
    commit(desk, "a", run(desk, "a", terms=short), terms=short)
    entry = f"rl:relier:{{{SHARD:02d}}}:idem:k"
    assert 0 < desk.client.pttl(entry) <= 50
    desk.client.delete(entry)  # Its time is over.

    assert run(desk, "b")


def test_a_run_that_the_store_lost_has_its_key_again_with_its_adoption(desk: Desk) -> None:
    fence = run(desk, "a")
    desk.client.flushall()

    assert desk.tasks.adopt("w1", desk.sending("a", key=TERMS), fence)

    wait_for(desk, "b")
    commit(desk, "a", fence)
    assert ended(desk, "b") == "completed"


def test_a_suspect_that_waits_for_its_turn_still_has_its_key(desk: Desk) -> None:
    for worker in ("w1", "w2"):
        seen = desk.published("a") if desk.find("a") else 0
        assert claim(desk, "a", worker, seen).fence
        desk.bury(worker)
    assert claim(desk, "a", "w3", desk.published("a"), slot=False).verdict is Verdict.HELD

    wait_for(desk, "b", worker="w4")


def test_purging_frees_a_key_and_lets_one_waiter_go_on(desk: Desk) -> None:
    terms = replace(TERMS, key=next(key for key in map(str, range(10_000)) if shard_of(key) == SHARD))
    run(desk, "a", terms=terms)
    wait_for(desk, "b", "c", terms=terms)

    assert desk.store.locks.purge() == (0, 1)

    assert [due.task_id for due in desk.due()] == ["b"]
    commit(desk, "b", run(desk, "b", "w2", desk.published("b"), terms), "w2", terms)
    assert ended(desk, "c") == "completed"
    assert desk.store.locks.purge() == (0, 0)
    assert desk.store.locks.purge(completed=True) == (0, 1)
    assert run(desk, "d", "w3", terms=terms)


@pytest.mark.parametrize("how", ["cancelled", "cancelled after its key lapsed"])
def test_the_end_of_a_task_that_does_not_own_the_key_changes_nothing(desk: Desk, how: str) -> None:
    fence = run(desk, "a")
    wait_for(desk, "b", "c", "d")
    ends = "b"
    if how != "cancelled":
        desk.bury("w1")
        desk.wait(121)
        desk.due()  # The key is b's now.
        fence, ends = run(desk, "b", "w3", desk.published("b")), "a"

    desk.tasks.hold(ends, "cancel", "somebody", SHARD)

    assert [due.task_id for due in desk.due()] == []
    wait_for(desk, "e")
    owner, worker = ("a", "w1") if how == "cancelled" else ("b", "w3")
    assert commit(desk, owner, fence, worker)
    assert [ended(desk, task) for task in "cde"] == ["completed"] * 3
