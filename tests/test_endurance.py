"""Threads of ours go on whatever happens; a worker without them does not start."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from dramatiq import Worker
from dramatiq.brokers.stub import StubBroker

from relier import install
from relier.endurance import endless, free_memory, lost_threads
from relier.middleware.heartbeat import CannotJoinError
from relier.process import WorkerProcess
from relier.settings import Settings


def test_a_loop_goes_on_after_an_error_that_its_own_handler_raised() -> None:
    stopped, began = threading.Event(), 0

    def loop() -> None:
        nonlocal began
        began += 1
        if began < 3:
            raise MemoryError

    endless(loop, stopped)()

    assert began == 3


def test_a_loop_that_was_stopped_does_not_begin_again() -> None:
    stopped, began = threading.Event(), 0

    def loop() -> None:
        nonlocal began
        began += 1
        stopped.set()
        raise MemoryError

    endless(loop, stopped)()

    assert began == 1


def test_what_a_task_without_memory_held_is_freed() -> None:
    freed = threading.Event()

    class Hoard:
        def __del__(self) -> None:
            freed.set()

    def task(error: type[Exception]) -> None:
        hoard = [Hoard()]
        raise error(f"no room for {len(hoard)}")

    with pytest.raises(ValueError, match="no room") as other:
        task(ValueError)
    free_memory(other.value)
    assert not freed.is_set()
    with pytest.raises(MemoryError) as caught:
        task(MemoryError)
    free_memory(caught.value)
    assert freed.is_set()


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_a_worker_that_cannot_join_the_fleet_does_not_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(WorkerProcess, "start", start)
    broker = install(StubBroker(), settings)

    with pytest.raises(CannotJoinError, match=r"cannot join the fleet \(RuntimeError: can't start new thread\)"):
        Worker(broker).start()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ended_by_itself_is_lost() -> None:
    worker = Worker(StubBroker(), worker_threads=2)
    worker.start()
    assert lost_threads(worker) == []
    worker.workers[0].work_queue = None  # type: ignore[assignment]
    worker.workers[0].join(30)
    assert lost_threads(worker) == [worker.workers[0].name]
    worker.workers.pop(0)
    worker.stop()
