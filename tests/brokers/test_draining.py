"""A worker of somebody's own process goes out of service: on stop it drains, and what it must not begin goes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq import Worker

from relier.brokers.redis import RelierRedisBroker
from relier.execution import Execution
from relier.process import WorkerProcess
from relier.runs import Run
from relier.schema import Arguments
from relier.settings import Settings
from tests.waiting import wait_until

Make = Callable[..., RelierRedisBroker]


@pytest.fixture
def brokers(redis_url: str) -> Iterator[Make]:
    made: list[RelierRedisBroker] = []

    def make(**options: Any) -> RelierRedisBroker:
        made.append(RelierRedisBroker(settings=Settings(redis_url=redis_url, **options)))
        return made[-1]

    yield make
    for broker in made:
        broker.close()
        broker.store.close()


def _process(broker: RelierRedisBroker) -> WorkerProcess:
    process: WorkerProcess = broker.__dict__["relier_installation"].process
    return process


def test_what_a_draining_worker_took_a_moment_before_goes_back_unclaimed(
    brokers: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, ran, back = brokers(), threading.Event(), threading.Event()
    requeue = broker.requeue

    def noting(*args: Any) -> None:
        back.set()
        requeue(*args)

    monkeypatch.setattr(broker, "requeue", noting)

    def work() -> None:
        ran.set()

    actor = dramatiq.actor(broker=broker)(work)
    worker = Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    _process(broker).state = "draining"
    actor.send()

    assert back.wait(30)

    assert broker.store.counters().get("accepted", 0) == 0
    assert not ran.is_set()
    _process(broker).state = ""
    assert ran.wait(30)
    worker.stop()
    assert broker.store.counters()["completed"] == 1


def test_stopping_a_worker_of_ones_own_hands_over_what_takes_too_long(brokers: Make) -> None:
    broker, began, gate = brokers(graceful_shutdown_timeout=0), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        gate.wait(60)

    actor = dramatiq.actor(broker=broker)(work)
    worker = Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    actor.send()
    assert began.wait(30)

    stopping = threading.Thread(target=worker.stop)
    stopping.start()

    wait_until(lambda: broker.store.counters().get("handed_over"), 30, "the hand-over")
    gate.set()
    stopping.join(30)
    assert not stopping.is_alive()
    assert broker.store.fleet.workers() == {}
    assert broker.store.counters().get("completed", 0) == 0

    again = Worker(broker, worker_threads=1, worker_timeout=100)  # It takes tasks again, and sweeps.
    again.start()
    wait_until(lambda: broker.store.counters().get("completed"), 30, "the second run")
    again.stop()


@pytest.fixture
def before_the_code(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[Run], object]]:
    """Return a list to put something in that is done once, between a task's claim and its code."""
    once: list[Callable[[Run], object]] = []
    migrated = Execution._migrated

    def doing(self: Execution, run: Run, *args: Any) -> Arguments:
        if once:
            once.pop()(run)
        return migrated(self, run, *args)

    monkeypatch.setattr(Execution, "_migrated", doing)
    return once


def test_code_that_has_not_begun_does_not_begin_after_the_hand_over(
    brokers: Make, before_the_code: list[Callable[[Run], object]]
) -> None:
    broker, ran = brokers(), []

    def work() -> None:
        ran.append(1)

    actor = dramatiq.actor(broker=broker)(work)
    worker = Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    before_the_code.append(lambda run: _process(broker).hand_over(run, "shutdown"))
    actor.send()
    wait_until(lambda: broker.store.counters().get("completed"), 30, "the run under the next claim")
    worker.stop()
    assert broker.store.counters()["handed_over"] == 1
    assert ran == [1]


def test_a_cancellation_that_comes_before_the_code_is_not_forgotten(
    brokers: Make, before_the_code: list[Callable[[Run], object]]
) -> None:
    broker, ran = brokers(), []

    async def work() -> None:
        ran.append(1)

    actor = dramatiq.actor(broker=broker)(work)
    worker = Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    before_the_code.append(lambda run: _process(broker)._handle({"type": "cancel", "task": run.task_id}))
    actor.send()
    wait_until(lambda: broker.store.counters().get("discarded"), 30, "the end of the cancelled task")
    worker.stop()
    assert ran == []
