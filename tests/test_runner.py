"""A coroutine ends by itself, by its limits or on request; that is decided once, and innocents are not to blame."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from dramatiq.asyncio import get_event_loop_thread, set_event_loop_thread

from relier import HardTimeoutError
from relier.event_loops import EventLoops, start_loop
from relier.runner import CoroutineRun, LoopBlocked, RunCancelled
from relier.runs import current
from relier.timeouts import Limits
from tests.waiting import wait_until

NEVER = Limits(float("inf"))
BLOCKS = "A coroutine blocks the event loop; it cannot commit any more."
SWALLOWS = "A cancelled coroutine does not end; it cannot commit any more."


class Bench:
    """Worker threads, each with a coroutine, on the event loops of a process."""

    def __init__(self) -> None:
        self.loops = EventLoops()
        self.home = start_loop()
        self.gate = threading.Event()
        self.outcomes: dict[str, Any] = {}
        self.runs: dict[str, CoroutineRun] = {}
        self.threads: list[threading.Thread] = []

    def start(self, name: str, start: Callable[[], Coroutine[Any, Any, Any]], limits: Limits = NEVER) -> CoroutineRun:
        run: Any = SimpleNamespace(
            task_id=name,
            actor_name="act",
            args=(),
            kwargs={},
            worker_id="w",
            attempt=0,
            crashes=0,
            fence=1,
            started_at=None,
            checkpoint=None,
            trace=None,
            message=SimpleNamespace(options={}),
        )
        token = current.set(run)
        coroutine = self.runs[name] = CoroutineRun(start, self.loops, limits, run)
        current.reset(token)
        thread = threading.Thread(target=self._wait, args=(name, coroutine), daemon=True)
        thread.start()
        self.threads.append(thread)
        return coroutine

    def _wait(self, name: str, coroutine: CoroutineRun) -> None:
        try:
            self.outcomes[name] = coroutine.wait()
        except BaseException as error:
            self.outcomes[name] = error
        finally:
            if coroutine.is_left_behind:
                coroutine.leave_behind()

    def outcome(self, name: str) -> Any:
        wait_until(lambda: name in self.outcomes, 30, f"the end of {name}")
        return self.outcomes[name]

    async def pause(self) -> str:
        while not self.gate.is_set():
            await asyncio.sleep(0.005)
        return "done"

    async def block(self) -> str:
        self.gate.wait(60)
        return "unblocked"

    async def swallow(self) -> str:
        while not self.gate.is_set():
            try:
                await self.pause()
            except asyncio.CancelledError:
                continue
        return "swallowed"

    def began(self, name: str) -> None:
        wait_until(lambda: self.runs[name]._began_at is not None, 30, f"the beginning of {name}")

    def close(self) -> None:
        self.gate.set()
        for thread in self.threads:
            thread.join(30)
        loop_thread = get_event_loop_thread()
        set_event_loop_thread(None)
        assert loop_thread is not None
        loop_thread.stop()  # type: ignore[no-untyped-call]


def reports(caplog: pytest.LogCaptureFixture, sentence: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.message == sentence]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("relier.runner.LOOKS_FOR_CLEANUP", 3)
    bench = Bench()
    yield bench
    bench.close()


async def give(value: Any) -> Any:
    await asyncio.sleep(0)
    if isinstance(value, BaseException):
        raise value
    return value


@pytest.mark.parametrize("error", [ValueError("no"), TimeoutError("its own"), SystemExit(3), asyncio.CancelledError()])
def test_a_coroutines_own_end_is_its_outcome(bench: Bench, error: BaseException) -> None:
    bench.start("returns", lambda: give(42))
    bench.start("raises", lambda: give(error))
    assert bench.outcome("returns") == 42
    assert bench.outcome("raises") is error
    assert bench.home.loop.is_running()


def test_what_takes_too_long_is_cancelled_and_cleans_up(bench: Bench) -> None:
    cleaned = []

    async def clean() -> None:
        try:
            await bench.pause()
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(True)

    coroutine = bench.start("t", clean, Limits(0.05))
    error = bench.outcome("t")
    assert isinstance(error, HardTimeoutError)
    assert str(error) == "It ran longer than the hard_timeout of 'act' (0.05 s)."
    assert cleaned == [True]
    assert not coroutine.is_left_behind


def test_an_actor_without_a_limit_gets_one_and_is_told_how_to_set_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relier.timeouts.FALLBACK", 0.05)
    bench.start("t", bench.pause, Limits.of({}, {}))
    error = bench.outcome("t")
    assert type(error).__name__ == "TimeoutError"
    assert "rl_actor(hard_timeout=<seconds>)" in str(error)


def test_dramatiqs_time_limit_holds_for_coroutines(bench: Bench) -> None:
    bench.start("t", bench.pause, Limits.of({"time_limit": 50}, {}))
    assert type(bench.outcome("t")).__name__ == "TimeLimitExceeded"
    assert Limits.of({"time_limit": 50}, {"time_limit": 2000}).hard == 2
    assert Limits.of({"time_limit": 50, "hard_timeout": 3.5}, {}).hard == 3.5


def test_the_end_and_the_deadline_are_decided_between_once(bench: Bench) -> None:
    first = bench.start("first", lambda: give("done"))
    assert bench.outcome("first") == "done"
    first._give_up(HardTimeoutError("too late"))  # The waiting thread was slow to look: nothing is raised.

    second = bench.start("second", bench.pause)
    bench.began("second")
    assert second._decide(HardTimeoutError("in time"))
    bench.gate.set()
    assert second._over.wait(30)
    assert (second._result, second._error) == (None, None)


def test_nothing_counts_that_a_coroutine_returns_after_its_time(bench: Bench) -> None:
    async def late() -> str:
        try:
            return await bench.pause()
        except asyncio.CancelledError:
            return "rescued"

    bench.start("t", late, Limits(0.05))
    assert isinstance(bench.outcome("t"), HardTimeoutError)


def test_a_cancelled_coroutine_may_still_return(bench: Bench) -> None:
    async def rescued() -> str:
        try:
            return await bench.pause()
        except asyncio.CancelledError:
            return "rescued"

    coroutine = bench.start("t", rescued)
    bench.began("t")
    coroutine.cancel()
    assert bench.outcome("t") == "rescued"


def test_what_is_cancelled_before_it_begins_never_begins(bench: Bench) -> None:
    bench.start("blocker", bench.block)
    bench.began("blocker")
    coroutine = bench.start("t", lambda: give(1))
    coroutine.cancel()
    assert isinstance(bench.outcome("t"), RunCancelled)
    assert coroutine._began_at is None


@pytest.mark.parametrize("how", ["hard", "cancel"])
def test_a_coroutine_that_swallows_its_cancellation_is_left_behind(
    bench: Bench, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    coroutine = bench.start("t", bench.swallow, Limits(0.05) if how == "hard" else NEVER)
    bench.start("innocent", bench.pause)
    bench.began("t")
    if how == "cancel":
        coroutine.cancel()
    error = bench.outcome("t")
    assert isinstance(error, HardTimeoutError if how == "hard" else RunCancelled)
    (report,) = wait_until(lambda: reports(caplog, SWALLOWS), 30, "the report")
    assert "in swallow" in report["stack"]
    assert "in pause" in report["stack"]
    assert report["task"] == "t"
    bench.gate.set()
    assert bench.outcome("innocent") == "done"
    assert get_event_loop_thread() is bench.home


def test_a_coroutine_that_blocks_the_loop_is_left_behind_and_others_go_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.start("stranded", bench.pause)
    bench.began("stranded")
    bench.start("blocker", bench.block, Limits(0.2))
    bench.began("blocker")
    bench.start("waiting", lambda: give("ran"))

    assert isinstance(bench.outcome("blocker"), HardTimeoutError)
    assert bench.outcome("waiting") == "ran"
    assert isinstance(bench.outcome("stranded"), LoopBlocked)
    (report,) = reports(caplog, BLOCKS)
    assert "in block" in report["stack"]
    assert get_event_loop_thread() is not bench.home
    bench.start("next", lambda: give("ran"))
    assert bench.outcome("next") == "ran"


def test_the_first_loop_comes_back_when_what_blocked_it_has_ended(bench: Bench) -> None:
    bench.start("blocker", bench.block, Limits(0.05))
    assert isinstance(bench.outcome("blocker"), HardTimeoutError)
    wait_until(lambda: get_event_loop_thread() is not bench.home, 30, "a fresh loop")
    substitute = get_event_loop_thread()
    assert substitute is not None
    bench.gate.set()
    wait_until(lambda: get_event_loop_thread() is bench.home, 30, "the first loop")
    wait_until(lambda: not substitute.is_alive(), 30, "the end of the fresh loop")


def test_a_loop_is_not_returned_to_while_what_blocked_it_goes_on(bench: Bench) -> None:
    again = threading.Event()

    async def blocks_again() -> None:
        bench.gate.wait(60)
        while not again.is_set():
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                continue

    bench.start("blocker", blocks_again, Limits(0.05))
    assert isinstance(bench.outcome("blocker"), HardTimeoutError)
    wait_until(lambda: get_event_loop_thread() is not bench.home, 30, "a fresh loop")
    bench.gate.set()
    went_on = threading.Event()
    bench.home.loop.call_soon_threadsafe(bench.home.loop.call_later, 0.05, went_on.set)
    assert went_on.wait(30)
    assert get_event_loop_thread() is not bench.home
    again.set()
    wait_until(lambda: get_event_loop_thread() is bench.home, 30, "the first loop")


def test_who_only_stands_behind_a_blocker_is_not_to_blame(bench: Bench) -> None:
    bench.start("innocent", bench.pause, Limits(0.5))
    bench.began("innocent")
    bench.start("blocker", bench.block)
    assert isinstance(bench.outcome("innocent"), LoopBlocked)
    assert "blocker" not in bench.outcomes
    bench.gate.set()
    assert bench.outcome("blocker") == "unblocked"


def test_a_task_that_a_coroutine_started_is_its_own_affair(bench: Bench) -> None:
    async def parent() -> None:
        await asyncio.create_task(bench.block())

    bench.start("innocent", bench.pause)
    bench.began("innocent")
    bench.start("parent", parent, Limits(0.3))
    assert isinstance(bench.outcome("parent"), HardTimeoutError)
    assert isinstance(bench.outcome("innocent"), LoopBlocked)


def test_a_loop_that_is_only_slow_is_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody's code is to be seen on it: it may be the machine."""
    bench.start("t", bench.pause, Limits(0.2))
    bench.began("t")
    held, looks = threading.Event(), []

    def hold() -> None:
        held.set()
        bench.gate.wait(60)

    def blocker() -> None:
        looks.append(1)
        if len(looks) > 5:
            bench.gate.set()

    bench.home.loop.call_soon_threadsafe(hold)
    assert held.wait(30)
    monkeypatch.setattr(bench.runs["t"]._place, "blocker", blocker)
    assert isinstance(bench.outcome("t"), HardTimeoutError)
    assert get_event_loop_thread() is bench.home
    assert caplog.records == []


def test_without_a_thread_to_be_had_the_loop_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("relier.event_loops.start_loop", refuse)
    bench.start("blocker", bench.block, Limits(0.05))
    assert isinstance(bench.outcome("blocker"), HardTimeoutError)
    wait_until(lambda: "There is no fresh event loop to be had." in caplog.text, 30, "the log line")
    bench.gate.set()
    bench.start("next", lambda: give(1))
    assert bench.outcome("next") == 1


def test_what_does_not_begin_goes_to_a_fresh_loop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relier.runner.LOOKS_BEFORE_MOVE", 3)
    bench.start("blocker", bench.block)
    bench.began("blocker")
    bench.start("t", lambda: give(1), Limits(0.2))  # Its time counts from its beginning.
    assert bench.outcome("t") == 1
    bench.gate.set()
    assert bench.outcome("blocker") == "unblocked"
    wait_until(lambda: get_event_loop_thread() is bench.home, 30, "the first loop")


def test_a_loop_that_ended_is_replaced(bench: Bench) -> None:
    bench.home.loop.call_soon_threadsafe(bench.home.loop.stop)
    bench.home.join(30)
    bench.start("t", lambda: give(1))
    assert bench.outcome("t") == 1


@pytest.mark.parametrize("is_async", [True, False])
def test_the_soft_hook_gets_the_context_once(bench: Bench, caplog: pytest.LogCaptureFixture, is_async: bool) -> None:
    told = []

    def hook(ctx: Any) -> None:
        told.append(ctx.task_id)

    async def async_hook(ctx: Any) -> None:
        await asyncio.sleep(0)
        hook(ctx)

    coroutine = bench.start("t", bench.pause, Limits(600.0, 0.05, async_hook if is_async else hook))
    wait_until(lambda: told, 30, "the hook")
    assert coroutine._soft.at == math.inf
    bench.gate.set()
    assert bench.outcome("t") == "done"
    assert told == ["t"]
    assert [r.levelno for r in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize("is_async", [True, False])
def test_a_failing_soft_hook_fails_nothing(bench: Bench, caplog: pytest.LogCaptureFixture, is_async: bool) -> None:
    def hook(ctx: Any) -> None:
        raise SystemExit("hook")

    async def async_hook(ctx: Any) -> None:
        raise SystemExit("hook")

    bench.start("t", bench.pause, Limits(600.0, 0.05, async_hook if is_async else hook))
    wait_until(lambda: "The hook of a soft timeout failed." in caplog.text, 30, "the log line")
    bench.gate.set()
    assert bench.outcome("t") == "done"


@pytest.mark.parametrize("is_async", [True, False])
def test_a_soft_hook_that_never_ends_delays_nothing(bench: Bench, is_async: bool) -> None:
    ended = threading.Event()

    def hook(ctx: Any) -> None:
        bench.gate.wait(60)

    async def async_hook(ctx: Any) -> None:
        try:
            await bench.pause()
        finally:
            ended.set()

    bench.start("t", bench.pause, Limits(0.3, 0.05, async_hook if is_async else hook))
    assert isinstance(bench.outcome("t"), HardTimeoutError)
    assert not is_async or ended.wait(30)


def test_no_soft_hook_is_called_after_the_end(bench: Bench) -> None:
    """Its time had come, but its thread began late."""
    told: list[Any] = []
    coroutine = bench.start("t", lambda: give(1), Limits(600.0, 500.0, told.append))
    assert bench.outcome("t") == 1
    coroutine._soft.pass_(bench.home.loop, coroutine._context)
    wait_until(lambda: "relier-soft-timeout" not in {t.name for t in threading.enumerate()}, 30, "the thread's end")
    assert told == []
