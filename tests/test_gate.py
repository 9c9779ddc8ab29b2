"""What a process knows of holds, and when it asks."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, cast

import pytest
import redis

from relier import gate
from relier.brokers.generic import Adapter
from relier.gate import FRESH, Gate
from relier.store import Store
from relier.store.fleet import Beat, Busy
from relier.store.holds import NO_HOLDS, Hold, Holds

PAUSED = Holds("7", {"default": Hold("queue", "default", 1.0)})


class FakeFleet:
    """Answers what a test says."""

    def __init__(self) -> None:
        self.now = NO_HOLDS
        self.asked = 0
        self.away = False

    def beat(self, worker: str, known: str, busy: Iterable[Busy] = ()) -> Beat:
        return Beat("ok", None if known == self.now.version else self.now)

    def holds(self) -> Holds:
        self.asked += 1
        if self.away:
            raise redis.ConnectionError("away")
        return self.now


class FakeStore:
    def __init__(self) -> None:
        self.fleet = FakeFleet()


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(gate, "time", clock)
    return clock


def make(adapter: Adapter | None = None) -> tuple[Gate, FakeFleet, Adapter]:
    store, adapter = FakeStore(), adapter or Adapter(object())  # type: ignore[arg-type]
    return Gate(cast("Store", store), adapter), store.fleet, adapter


def test_a_beat_brings_the_news_and_closes_the_queues(clock: Clock) -> None:
    process, fleet, adapter = make()
    assert process.beat("w1") == "ok"
    fleet.now = PAUSED
    assert process.holds is NO_HOLDS
    process.beat("w1")
    assert process.holds is PAUSED
    assert [adapter.is_closed(lane) for lane in ("default", "default.DQ", "other")] == [True, True, False]
    fleet.now = NO_HOLDS
    process.beat("w1")
    assert not adapter.is_closed("default")


def test_while_beats_come_nobody_asks(clock: Clock) -> None:
    process, fleet, _ = make()
    for _ in range(10):
        process.beat("w1")
        clock.now += FRESH
        assert process.known() is NO_HOLDS
    assert fleet.asked == 0


def test_a_view_that_is_too_old_is_not_used(clock: Clock) -> None:
    process, fleet, _ = make()
    process.beat("w1")
    fleet.now = PAUSED
    clock.now += FRESH + 0.01
    fleet.away = True
    with pytest.raises(redis.ConnectionError):
        process.known()
    fleet.away = False
    assert process.known() is PAUSED
    assert process.known() is PAUSED
    assert fleet.asked == 2


def test_a_view_is_as_old_as_its_question(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    process, fleet, _ = make()
    beat = fleet.beat

    def slow(*arguments: Any) -> Beat:
        answer = beat(*arguments)
        clock.now += 10.0
        return answer

    monkeypatch.setattr(fleet, "beat", slow)
    process.beat("w1")
    process.known()
    assert fleet.asked == 1


def test_a_late_answer_does_not_replace_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    process, fleet, _ = make()
    answered, goes_on = threading.Event(), threading.Event()
    beat = fleet.beat

    def late(*arguments: Any) -> Beat:
        answer = beat(*arguments)
        answered.set()
        goes_on.wait(60)
        return answer

    fleet.now = PAUSED
    monkeypatch.setattr(fleet, "beat", late)
    beating = threading.Thread(target=process.beat, args=("w1",))
    beating.start()
    answered.wait(60)
    fleet.now = NO_HOLDS
    looking = threading.Thread(target=process.look)
    looking.start()
    goes_on.set()
    beating.join()
    looking.join()
    assert process.holds is NO_HOLDS


def test_a_worker_that_joins_again_opens_what_was_resumed_meanwhile() -> None:
    first, fleet, adapter = make()
    fleet.now = PAUSED
    first.look()
    second, _, _ = make(adapter)
    second.look()
    assert not adapter.is_closed("default")


def test_threads_that_wait_for_an_answer_share_the_next_one() -> None:
    """Else a slow store is asked by one after the other, and the beat waits for all of them."""
    process, fleet, _ = make()
    many, arrived = 8, threading.Semaphore(0)

    class Lock:
        """Tells when somebody comes to it."""

        def __init__(self) -> None:
            self._lock = threading.Lock()

        def __enter__(self) -> None:
            arrived.release()
            self._lock.acquire()

        def __exit__(self, *_: object) -> None:
            self._lock.release()

    def holds() -> Holds:
        fleet.asked += 1
        if fleet.asked == 1:  # Meanwhile all others come.
            for _ in range(many):
                assert arrived.acquire(timeout=30)
        return PAUSED

    fleet.holds = holds  # type: ignore[method-assign]
    process._learning = Lock()  # type: ignore[assignment]
    known: list[Holds] = []
    threads = [threading.Thread(target=lambda: known.append(process.known())) for _ in range(many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert known == [PAUSED] * many
    assert fleet.asked <= 2
