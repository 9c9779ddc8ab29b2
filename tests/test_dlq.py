"""`relier.dlq`: dead letters from an application, and whole ones from store to store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import redis
from dramatiq import Message

from relier import dlq
from relier.dlq import DeadLetters, EditRefusedError, Place, Wanted
from relier.envelope import stamp_first_hand, stamp_of
from relier.hooks import encode_failure
from relier.integrity import Integrity
from relier.settings import Settings
from relier.store import Failure, Record, Sending, Store, letter_entries
from relier.store.survey import Survey
from tests.conftest import SharedServers
from tests.waiting import wait_until

WORKER = "w1"


@pytest.fixture
def client(servers: SharedServers) -> Iterator[redis.Redis]:
    """One kind of server will do: the scripts have tests of their own."""
    server = servers.store("embedded")
    server.empty()
    with server.client() as client:
        yield client


@pytest.fixture
def store(client: redis.Redis) -> Iterator[Store]:
    store = Store(client)
    yield store
    store.runner.close()


@pytest.fixture
def other(client: redis.Redis) -> Iterator[Store]:
    store = Store(client, "other")
    yield store
    store.runner.close()


@pytest.fixture
def dead(store: Store) -> DeadLetters:
    return DeadLetters(store, "me")


def die(store: Store, number: int = 0, **more: Any) -> str:
    """Let a task fail for good; returns its id."""
    message = stamp_first_hand(Message("default", "work", (number,), {}, {}))
    Integrity().seal(message)
    stamp = stamp_of(message)
    fields: dict[str, Any] = {"queue": "default", "actor": "work", "body": message.encode(), **more}
    sending = Sending(stamp.task_id, stamp.shard, **fields)
    claim = store.tasks.claim(WORKER, sending, b"n", 0, slot_free=True)
    encoded = encode_failure(ValueError(f"no {number}"))
    failure = Failure(False, 0.0, True, False, "ValueError", encoded, "ValueError: no such thing", "print")
    assert store.tasks.fail(WORKER, sending, claim.fence, failure) == "dead"
    return stamp.task_id


def run(store: Store, task_id: str, then: Callable[[Sending, int], object]) -> None:
    """Publish a released task, claim it, and end its run."""
    record = record_of(store, task_id)
    shard = store.known(task_id).shard
    due = next(due for due in store.tasks.due([shard], 100)[1] if due.task_id == task_id)
    sending = Sending(task_id, shard, record.queue, record.actor, record.body)
    then(sending, store.tasks.claim(WORKER, sending, b"again", due.fence, slot_free=True).fence)


def record_of(store: Store, task_id: str) -> Record:
    record = store.record(task_id)
    assert record is not None
    return record


# -- reading, releasing, purging --------------------------------------------------------------------------------------


def test_the_answer_has_the_order_of_the_question(store: Store, dead: DeadLetters) -> None:
    ids = [die(store, number) for number in range(12)]
    assert list(dead.release(*ids, "nobody")) == [*ids, "nobody"]


def test_letters_are_released_the_oldest_first_and_no_more_than_asked_for(store: Store, dead: DeadLetters) -> None:
    made = [die(store, number) for number in range(5)]
    assert [place.task_id for place in dead.places()] == made

    assert dead.release_all(limit=2) == {"released": 2}

    assert [place.task_id for place in dead.places()] == made[2:]
    assert dead.release_all(Wanted(actor="nobody")) == {}
    assert dead.release(made[2], made[0], "nobody") == {made[2]: "released", made[0]: "gone", "nobody": "unknown"}
    assert [run.worker for run in record_of(store, made[2]).runs] == [WORKER, "me"]


def test_what_dies_after_the_look_is_not_released(store: Store, dead: DeadLetters) -> None:
    """Else a failing task would go round and round."""
    first = die(store)
    seen: list[dict[Place, str]] = []

    def told(outcomes: Any) -> None:
        seen.append(dict(outcomes))
        die(store)

    dead.release_all(rate=1000, told=told)

    assert [list(outcomes.values()) for outcomes in seen] == [["released"]]
    assert (dead.count(), record_of(store, first).state) == (1, "s")


def test_what_dies_while_the_letters_are_looked_up_is_not_released(
    store: Store, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a task that dies again at once could be released by one command for ever."""
    old, now, young = die(store, 1), Survey.now, list[str]()

    def begins(survey: Survey) -> float:
        began = now(survey)
        young.append(die(store, 2))
        return began

    monkeypatch.setattr(Survey, "now", begins)
    assert dead.release_all(Wanted()) == {"released": 1}
    assert (record_of(store, old).status, record_of(store, young[0]).status) == ("scheduled", "dead")


def test_a_rate_spreads_releases_over_time(store: Store, dead: DeadLetters) -> None:
    for number in range(6):
        die(store, number)
    began, at = time.monotonic(), list[float]()
    dead.release_all(rate=20, told=lambda outcomes: at.extend([time.monotonic() - began] * len(outcomes)))
    assert len(at) == 6
    assert all(moment >= i // 2 * 2 / 20 for i, moment in enumerate(at))  # two a piece


def test_what_was_held_up_does_not_catch_up_with_its_rate(
    store: Store, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever took long: the rate spares somebody who has the letters' tasks to bear."""
    now, at = [0.0], list[float]()

    class Clock:
        monotonic = staticmethod(lambda: now[0])

        @staticmethod
        def sleep(seconds: float) -> None:
            now[0] += seconds

    def told(outcomes: Any) -> None:
        at.append(now[0])
        now[0] += 10.0 if len(at) == 1 else 0.0

    for number in range(6):
        die(store, number)
    monkeypatch.setattr(dlq, "time", Clock)
    dead.release_all(dead.places(), rate=2, told=told)
    assert all(after - before >= 0.5 for before, after in pairwise(at)), at


def test_a_purge_takes_what_is_wanted(store: Store, dead: DeadLetters) -> None:
    made = die(store, actor="other"), die(store)
    assert dead.purge(Wanted(actor="other")) == {"purged": 1}
    assert (record_of(store, made[0]).status, record_of(store, made[1]).status) == ("discarded", "dead")


def test_the_plan_of_the_oldest_letters_counts_those_only(store: Store, dead: DeadLetters) -> None:
    for number in range(3):
        die(store, number, payload_version=1 + number // 2)
    assert [tuple(p) for p in dead.plan()] == [("work", "default", 1, 2), ("work", "default", 2, 1)]
    assert [tuple(p) for p in dead.plan(limit=1)] == [("work", "default", 1, 1)]


# -- a canary ---------------------------------------------------------------------------------------------------------


def canary_that(store: Store, dead: DeadLetters, then: Callable[[Sending, int], object]) -> Any:
    task_id = die(store)
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(dead.try_one(dead.places(), patience=60)))
    waiting.start()
    wait_until(lambda: record_of(store, task_id).state == "s", 30, "its release")
    run(store, task_id, then)
    waiting.join(60)
    assert found[0].task_id == task_id
    return found[0]


def test_a_canary_that_completes_has_succeeded(store: Store, dead: DeadLetters) -> None:
    canary = canary_that(store, dead, lambda s, fence: store.tasks.commit(WORKER, s, fence, hooks=False))
    assert (canary.outcome, canary.succeeded) == ("completed", True)


def test_a_canary_that_fails_again_has_not(store: Store, dead: DeadLetters) -> None:
    failure = Failure(False, 0.0, True, False, "ValueError", b"", "again", "print")
    canary = canary_that(store, dead, lambda s, fence: store.tasks.fail(WORKER, s, fence, failure))
    assert (canary.outcome, canary.succeeded) == ("dead", False)


def test_nobody_waits_for_ever_for_a_canary(store: Store, dead: DeadLetters) -> None:
    die(store)
    canary = dead.try_one(dead.places(), patience=0)
    assert canary is not None
    assert (canary.outcome, canary.succeeded) == ("scheduled", False)
    assert dead.try_one(dead.places()) is None


# -- other arguments --------------------------------------------------------------------------------------------------


def test_a_letter_with_other_arguments_runs_with_those(store: Store, dead: DeadLetters) -> None:
    task_id = die(store, 1)
    outcome, unchecked = dead.release_edited(task_id, [2], {"deep": True}, settings=Settings())
    assert outcome == "released"
    assert "declares the actor 'work'" in unchecked

    record = record_of(store, task_id)
    message = Message[Any].decode(record.body)
    assert (message.args, message.kwargs) == ((2,), {"deep": True})
    assert Integrity().examine(message)
    assert record.runs[-1].detail == "with other arguments"
    assert dead.release_edited(task_id, [3], settings=Settings()) == ("gone", "")


def test_a_letter_that_cannot_be_edited_is_not_touched(store: Store, dead: DeadLetters) -> None:
    task_id = die(store, 1)
    with pytest.raises(EditRefusedError, match="It is not signed"):
        dead.release_edited(task_id, [2], settings=Settings(signing_keys="k:" + 32 * "a"))
    assert record_of(store, task_id).state == "d"
    raw = Sending("raw-1", stamp_of(Message("default", "work", (), {}, {}, "raw-1")).shard, "default", "", b"\xff")
    store.tasks.dead_letter(raw, "PayloadIntegrityError", b"")
    with pytest.raises(EditRefusedError, match="letter of a refused message"):
        dead.release_edited("raw-1", [2], settings=Settings())


# -- files ------------------------------------------------------------------------------------------------------------


def test_an_exported_letter_is_the_same_in_another_store(
    store: Store, other: Store, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(letter_entries, "READ_BYTES", 1)  # One letter a reply.
    for number in range(12):
        die(store, number)
    there = DeadLetters(other, "them")
    exported = list(dead.export())

    assert there.take_in(exported) == ["imported"] * 12
    assert there.take_in(exported) == ["exists"] * 12

    found = list(there.export())
    assert [entry.task_id for entry in found] == [entry.task_id for entry in exported]
    for ours, theirs in zip(exported, found, strict=True):
        assert theirs.runs[:-1] == ours.runs
        assert (theirs.runs[-1].worker, theirs.runs[-1].outcome) == ("them", "imported")
        assert replace(theirs, runs=(), fence=0) == replace(ours, runs=(), fence=0)
        assert theirs.fence > ours.fence
    counters = other.counters()
    assert (counters["accepted"], counters["dead"]) == (12, 12)
    assert there.groups()[0].sample_message == "ValueError: no such thing"


def test_an_imported_letter_runs_when_it_is_released(store: Store, other: Store, dead: DeadLetters) -> None:
    task_id = die(store)
    DeadLetters(other).take_in(dead.export())
    assert DeadLetters(other).release(task_id) == {task_id: "released"}
    other.fleet.register(WORKER, {})
    run(other, task_id, lambda s, fence: other.tasks.commit(WORKER, s, fence, hooks=False))
    assert other.counters()["completed"] == 1


def test_a_purged_letter_comes_back_and_the_account_adds_up(store: Store, dead: DeadLetters) -> None:
    task_id = die(store)
    exported = list(dead.export())
    dead.purge(Wanted())

    assert dead.take_in(exported) == ["imported"]

    assert record_of(store, task_id).status == "dead"
    counters = store.counters()
    assert (counters["accepted"], counters["dead"], counters["dlq_left"], counters["discarded"]) == (2, 2, 1, 1)
    sending = Sending(task_id, store.known(task_id).shard, "default", "work", b"")
    assert store.tasks.claim(WORKER, sending, b"late", 0, slot_free=True).verdict == "settled"


def test_a_task_that_goes_on_or_has_ended_here_is_not_overwritten(store: Store, dead: DeadLetters) -> None:
    task_id = die(store)
    exported = list(dead.export())
    dead.release(task_id)
    assert dead.take_in(exported) == ["known"]
    run(store, task_id, lambda s, fence: store.tasks.commit(WORKER, s, fence, hooks=False))
    assert dead.take_in(exported) == ["known"]
    assert record_of(store, task_id).status == "completed"


def test_a_checkpoint_beside_the_record_comes_along(store: Store, other: Store, dead: DeadLetters) -> None:
    message = stamp_first_hand(Message("default", "work", (), {}, {}))
    stamp = stamp_of(message)
    sending = Sending(stamp.task_id, stamp.shard, "default", "work", message.encode())
    fence = store.tasks.claim(WORKER, sending, b"n", 0, slot_free=True).fence
    store.checkpoints.keep(WORKER, sending, fence, "k", b"half of it")
    store.tasks.fail(WORKER, sending, fence, Failure(False, 0.0, True, False, "ValueError", b"", "no"))

    DeadLetters(other).take_in(dead.export())
    DeadLetters(other).release(stamp.task_id)

    due = other.tasks.due([stamp.shard], 10)[1][0]
    claim = other.tasks.claim(WORKER, sending, b"n", due.fence, slot_free=True)
    assert claim.checkpoint == b"shalf of it"
