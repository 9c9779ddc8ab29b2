"""`idempotency_lock`: guarded code is executed once, and whoever lost the lock changes nothing."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from relier import IdempotencyInFlightError, StaleFenceError, StoreUnavailableError, idempotency_lock
from relier.failures import FailureKind, classify
from relier.locks import IdempotencyLock, _keeper
from relier.runs import current
from relier.settings import get_settings
from relier.store import get_store
from relier.store.locks import Locks
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def store_of_the_test(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIER_REDIS_URL", store_url)


def in_task(task: str, fence: int) -> None:
    """Let the rest of the test be the code of a task's run."""
    run: Any = SimpleNamespace(task_id=task, actor_name="work", attempt=0, fence=fence, worker_id="w")
    current.set(run)


@pytest.fixture(autouse=True)
def no_run() -> Any:
    token = current.set(None)
    yield
    current.reset(token)


def held(key: str) -> bool:
    try:
        with idempotency_lock(key, 60) as lock:
            assert not lock.already_executed
            raise KeyError
    except IdempotencyInFlightError:
        return True
    except KeyError:
        return False


def test_code_is_executed_once_and_its_result_is_kept() -> None:
    with idempotency_lock("order:1", ttl=60) as lock:
        assert (lock.already_executed, lock.cached_result) == (False, None)
        lock.set_result({"charged": [1, 2]})

    with idempotency_lock("order:1", ttl=60) as again:
        assert (again.already_executed, again.cached_result) == (True, {"charged": [1, 2]})
        with pytest.raises(RuntimeError, match="not already_executed"):
            again.set_result(3)
    with idempotency_lock("order:2", ttl=60) as other:
        assert not other.already_executed
        other.set_result(None)


def test_async_and_sync_code_share_locks() -> None:
    async def execute() -> Any:
        async with idempotency_lock(("order", 1)) as lock:
            assert not lock.already_executed
            with pytest.raises(IdempotencyInFlightError, match="held by another execution"):
                async with idempotency_lock(("order", 1)):
                    pass
            lock.set_result(7)
        async with idempotency_lock(["order", 1]) as again:
            return again.cached_result

    assert asyncio.run(execute()) == 7
    with idempotency_lock(("order", 1)) as sync:
        assert sync.cached_result == 7


@pytest.mark.parametrize("ttl", [math.inf, 1e17])
def test_a_result_may_count_for_ever(ttl: float) -> None:
    with idempotency_lock("key", ttl) as lock:
        lock.set_result(1)
    with idempotency_lock("key", ttl) as lock:
        assert (lock.already_executed, lock.cached_result) == (True, 1)


def test_an_exception_frees_the_lock() -> None:
    with pytest.raises(KeyError), idempotency_lock("k", 60) as lock:
        lock.set_result(1)
        raise KeyError("no")
    assert not held("k")
    with pytest.raises(RuntimeError, match="entered once"):
        lock.__enter__()


def test_without_a_result_none_is_remembered_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), idempotency_lock("secret@example.com", 60):
        pass
    with idempotency_lock("secret@example.com", 60) as again:
        assert (again.already_executed, again.cached_result) == (True, None)
    assert "ended without set_result" in caplog.text
    assert "secret" not in caplog.text


def test_a_warning_names_the_task_whose_code_holds_the_lock(caplog: pytest.LogCaptureFixture) -> None:
    in_task("some-task", 11)
    with caplog.at_level(logging.WARNING), idempotency_lock("secret@example.com", 60):
        pass
    assert "task='some-task'" in caplog.text
    assert "secret" not in caplog.text


def test_the_next_run_of_a_task_has_its_lock_at_once_and_the_old_one_can_do_nothing() -> None:
    in_task("t", 10)
    old = idempotency_lock("k", 60).__enter__()
    in_task("t", 11)

    with idempotency_lock("k", 60) as new:
        assert not new.already_executed
        with pytest.raises(StaleFenceError, match="was lost to another execution"):
            old.__exit__(None, None, None)
        in_task("other", 99)
        assert held("k")
        in_task("t", 10)
        with pytest.raises(StaleFenceError, match="A later run"):
            idempotency_lock("k", 60).__enter__()
        new.set_result("new")

    with idempotency_lock("k", 60) as again:
        assert again.cached_result == "new"


def test_a_fenced_run_does_not_free_the_lock_of_its_successor() -> None:
    in_task("t", 10)
    old = idempotency_lock("k", 60).__enter__()
    in_task("t", 11)
    with idempotency_lock("k", 60) as new:
        old.__exit__(KeyError, KeyError(), None)
        in_task("other", 1)
        assert held("k")
        new.set_result(1)


def test_one_run_cannot_hold_a_lock_twice() -> None:
    in_task("t", 10)
    with idempotency_lock("k", 60) as lock:
        assert held("k")
        lock.set_result(1)


def test_a_lock_is_kept_as_long_as_it_is_held(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIER_IDEMPOTENCY_INFLIGHT_TTL", "4")
    with idempotency_lock("k", 60) as lock:
        (name,) = client.keys("rl:*:lock:*")
        seen = [client.pttl(name)]

        def renewed() -> bool:
            seen.append(client.pttl(name))
            return seen[-1] > seen[-2]

        wait_until(renewed, 30, "a renewal")
        lock.set_result(1)


def test_the_lock_of_a_dead_holder_lapses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIER_IDEMPOTENCY_INFLIGHT_TTL", "1")
    dead = idempotency_lock("k", 60).__enter__()
    _keeper.drop(dead)  # Its process died: nobody renews it.

    wait_until(lambda: not held("k"), 30, "its end")

    with pytest.raises(StaleFenceError):
        dead.__exit__(None, None, None)


def test_a_result_over_the_limit_is_refused_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIER_MAX_RESULT_BYTES", "1000")
    limit = get_settings().max_result_bytes
    with idempotency_lock("k", 60) as lock:
        with pytest.raises(ValueError, match=f"more than RELIER_MAX_RESULT_BYTES \\({limit}\\)"):
            lock.set_result("x" * limit)
        lock.set_result("small")


@pytest.mark.parametrize("ttl", [0, -1.0])
def test_a_lock_without_time_is_refused(ttl: float) -> None:
    with pytest.raises(ValueError, match="a number of seconds above 0"):
        idempotency_lock("k", ttl)


def test_a_cancelled_attempt_leaves_no_lock_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    acquire, entered, go_on = Locks.acquire, threading.Event(), threading.Event()

    def slowly(*args: Any) -> Any:
        entered.set()
        assert go_on.wait(30)
        return acquire(*args)

    async def attempt() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Locks, "acquire", slowly)
            task = asyncio.create_task(idempotency_lock("k", 60).__aenter__())
            await asyncio.to_thread(entered.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go_on.set()
            await asyncio.sleep(0)
        await asyncio.to_thread(wait_until, lambda: not held("k"), 30, "the lock's release")

    asyncio.run(attempt())


def test_an_interrupted_commit_is_repeated(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, lost = Locks.commit, [redis.ConnectionError(), redis.TimeoutError()]

    def unreliable(*args: Any) -> bool:
        done = commit(*args)
        if lost:
            raise lost.pop()
        return done

    monkeypatch.setattr(Locks, "commit", unreliable)
    with idempotency_lock("k", 60) as lock:
        lock.set_result(5)
    assert not lost
    with idempotency_lock("k", 60) as again:
        assert again.cached_result == 5


def test_a_store_that_is_away_is_told_before_anything_is_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any) -> Any:
        raise redis.ConnectionError("away")

    monkeypatch.setattr("relier.locks.ACQUIRE_PATIENCE", 0.05)
    monkeypatch.setattr(Locks, "acquire", away)
    with pytest.raises(StoreUnavailableError):
        idempotency_lock("k", 60).__enter__()


def test_a_lock_that_is_held_is_worth_a_retry() -> None:
    assert classify(IdempotencyInFlightError("held")) is FailureKind.TRANSIENT


def test_purging_frees_what_is_held_and_forgets_on_request_only() -> None:
    locks = get_store().locks
    with idempotency_lock("done", 60) as done:
        done.set_result(1)
    stuck: IdempotencyLock = idempotency_lock("held", 60).__enter__()

    assert locks.purge() == (1, 0)

    assert not held("held")
    with pytest.raises(StaleFenceError):
        stuck.__exit__(None, None, None)
    with idempotency_lock("done", 60) as again:
        assert again.already_executed
    assert locks.purge(completed=True) == (1, 0)
    assert not held("done")
