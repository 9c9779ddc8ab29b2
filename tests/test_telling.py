"""The worker's log says of every failure what became of its task, and nothing that may be a secret."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from dramatiq.errors import RateLimitExceeded

from relier import rl_actor
from relier.brokers import default_broker
from relier.process import WorkerProcess
from relier.settings import Settings
from relier.store import Sending, Store, shard_of
from relier.sweeper import Sweeper
from relier.testing import Testing

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

RETRIED = "A task failed; it is retried."
DEAD = "A task failed for good; it is a dead letter."
ENDED = "A task did not complete, and was asked to end; it is discarded."
CRASHED = "A task's workers died too often; it is a dead letter."
SECRET = "hunter" + "2"


@pytest.fixture
def tasks(store_url: str) -> Iterator[Testing]:
    with Testing(fail_fast=False, redis_url=store_url) as tasks:
        yield tasks


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "relier.telling")
    return caplog


def told(log: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, Any]]]:
    """Return level, sentence and fields of every line."""
    ordinary = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}
    return [
        (r.levelname, r.getMessage(), {name: value for name, value in vars(r).items() if name not in ordinary})
        for r in log.records
        if r.name == "relier.telling"
    ]


def test_each_retry_and_the_death_are_told_and_no_secret(tasks: Testing, log: pytest.LogCaptureFixture) -> None:
    @rl_actor(queue_name="low_priority", transient=OSError, max_retries=2, min_backoff=4000, max_backoff=4000)
    def send(password: str) -> None:
        raise OSError(f"refused: {password}")

    task = send.push(SECRET).id
    tasks.finish()

    *retries, (level, sentence, dead) = told(log)
    common = {"task": task, "actor": "send", "queue": "low_priority", "reason": "OSError", "kind": "transient"}
    assert retries == [("INFO", RETRIED, {**common, "attempt": n, "delay": 4.0}) for n in (1, 2)]
    letter = tasks.store.record(task)
    assert letter is not None
    assert (level, sentence) == ("ERROR", DEAD)
    assert dead == {**common, "attempts": 3, "fingerprint": letter.fingerprint}
    assert SECRET not in str(told(log))


def test_the_third_identical_failure_is_told(tasks: Testing, log: pytest.LogCaptureFixture) -> None:
    @rl_actor
    def ship() -> None:
        raise LookupError("gone")

    ship.push()
    tasks.finish()

    *retries, (_, sentence, fields) = told(log)
    assert [line[1] for line in retries] == [RETRIED] * 2
    assert (sentence, fields["identical"], fields["attempts"]) == (DEAD, 3, 3)
    assert fields["kind"] == "unclassified"


def test_what_does_not_count_is_told_to_whoever_debugs(tasks: Testing, log: pytest.LogCaptureFixture) -> None:
    ran = []

    @rl_actor
    def limited() -> None:
        ran.append(1)
        if len(ran) == 1:
            raise RateLimitExceeded("later")  # type: ignore[no-untyped-call]

    limited.push()
    tasks.finish()

    ((level, sentence, fields),) = told(log)
    assert (level, sentence, fields["attempt"]) == ("DEBUG", RETRIED, 0)


@pytest.mark.parametrize("knows", [False, True])
def test_a_failure_of_a_task_that_was_asked_to_end(tasks: Testing, log: pytest.LogCaptureFixture, knows: bool) -> None:
    from relier.runs import current

    @rl_actor
    def endless() -> None:
        run = current.get()
        assert run is not None
        tasks.store.tasks.hold(run.task_id, "cancel", "me", run.stamp.shard)
        run.stops = knows  # As a worker knows that heard of it in time.
        raise ValueError(SECRET)

    task = endless.push().id
    tasks.finish()

    fields = {"task": task, "actor": "endless", "queue": "default", "reason": "ValueError"}
    assert told(log) == [("INFO", ENDED, fields)]


def test_success_says_nothing(tasks: Testing, log: pytest.LogCaptureFixture) -> None:
    @rl_actor
    def fine() -> None:
        return None

    fine.push()
    tasks.finish()
    assert told(log) == []


def _running(store: Store, task: str, max_resurrections: int) -> Sending:
    sending = Sending(task, shard_of(task), "mail", "send", b"", max_resurrections=max_resurrections)
    store.tasks.claim("w1", sending, b"n", 0, slot_free=True)
    return sending


def test_whoever_buries_a_worker_tells_of_each_task_that_dies_with_it(
    store: Store, settings: Settings, log: pytest.LogCaptureFixture
) -> None:
    store.fleet.register("w1", {"role": "worker"})
    poison = [_running(store, f"poison-{n}", 0).task_id for n in range(3)]
    _running(store, "innocent", 3)
    store.fleet.declare_dead("w1")
    broker = default_broker(settings)
    sweeper = Sweeper(WorkerProcess(broker, store, settings), dedicated=True)
    try:
        sweeper._fulfil("w1")
    finally:
        sweeper.stop()
        broker.close()

    assert sorted(fields["task"] for _, _, fields in told(log)) == poison
    level, sentence, fields = told(log)[0]
    assert (level, sentence) == ("ERROR", CRASHED)
    assert fields.items() >= {"actor": "send", "queue": "mail", "crashes": 1}.items()


def test_a_claim_that_finds_the_last_crash_tells_of_it(
    tasks: Testing, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    @rl_actor(max_resurrections=0)
    def poison() -> None:
        raise AssertionError("It does not run.")

    task = poison.push().id
    shard = shard_of(task)
    sending = Sending(task, shard, "default", "poison", b"", max_resurrections=0)
    monkeypatch.setattr("relier.store.sweeping.BATCH", 1)
    first = next(f"-{n}" for n in itertools.count() if shard_of(f"-{n}") == shard)  # Sorts before any task's id.
    tasks.store.tasks.claim("w1", Sending(first, shard, "default", "poison", b""), b"n", 0, slot_free=True)
    tasks.store.tasks.claim("w1", sending, b"n", 0, slot_free=True)
    assert tasks.store.tasks.bury("w1", [shard], "crash")[shard].left == 1

    tasks.run()

    assert told(log) == [("ERROR", CRASHED, {"task": task, "actor": "poison", "queue": "default", "crashes": 1})]
