"""Dramatiq's interrupts may arrive between any two lines: once the user code is over, they change nothing."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import dramatiq
import pytest
from dramatiq import Worker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Middleware, TimeLimitExceeded

import relier
from relier import TaskCancelled, TaskFailedError, closing, execution, rl_actor
from relier.installation import installation_of
from relier.lifecycle import current_run
from relier.settings import Settings
from tests.waiting import wait_until

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


class LateInterrupt:
    """Raises a time limit at one of the lines that follow the user code in `relier.execution` and `relier.closing`."""

    def __init__(self) -> None:
        self.line = 0
        self.hit = ""
        self.runs = 0
        self._passed = 0

    def arm(self, line: int) -> None:
        self.line, self.hit, self.runs, self._passed = line, "", 0, 0

    def begin(self) -> None:
        """Watch the lines from here on; called by the user code, last of all."""
        self.runs += 1
        if self.runs > 1:
            return
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            frame.f_trace = self._trace
            frame = frame.f_back
        sys.settrace(self._trace)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and _may_be_interrupted(frame):
            self._passed += 1
            if self._passed == self.line:
                self.hit = f"{frame.f_code.co_name}:{frame.f_lineno}"
                self._strike()
        return self._trace

    def _strike(self) -> None:
        sys.settrace(None)
        raise TimeLimitExceeded("late")


def _may_be_interrupted(frame: FrameType) -> bool:
    """Whether an interrupt may come here. The interpreter lets none in between the end of a `with` and its exit."""
    name = frame.f_code.co_filename
    line = linecache.getline(name, frame.f_lineno).strip()
    return name in (execution.__file__, closing.__file__) and not line.startswith("with ")


@pytest.fixture
def broker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> StubBroker:
    broker = StubBroker()
    relier.install(broker, settings)
    monkeypatch.setattr(dramatiq.broker, "global_broker", broker)
    return broker


@pytest.fixture
def worker(broker: StubBroker) -> Iterator[Worker]:
    worker = Worker(broker, worker_timeout=20, worker_threads=1)
    worker.start()
    yield worker
    worker.stop()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.usefixtures("worker")
def test_a_time_limit_that_comes_after_the_user_code_changes_nothing(broker: StubBroker, fails: bool) -> None:
    late, store = LateInterrupt(), installation_of(broker).store

    def act() -> None:
        late.begin()
        if fails:
            raise ValueError("no")

    actor: Any = rl_actor(act, broker=broker, max_retries=0)
    expected, tasks = ("dead" if fails else "completed"), 0
    while tasks == 0 or late.hit:
        tasks += 1
        late.arm(tasks)
        receipt = actor.push()
        wait_until(lambda: receipt.status() == expected, 30, f"{expected} after an interrupt at {late.hit}")  # noqa: B023
        assert late.runs == 1, late.hit
        broker.join("default", timeout=30_000, fail_fast=False)
    assert tasks > 15
    counters = store.counters()
    assert counters[expected] == tasks
    assert counters.get("handed_over", 0) == 0
    assert counters.get("failed", 0) == (tasks if fails else 0)


@pytest.mark.usefixtures("worker")
def test_a_late_interrupt_leaves_no_run_to_what_comes_next_on_the_thread(broker: StubBroker) -> None:
    """What a hook enqueues would pass for the code of the task."""
    late, seen = LateInterrupt(), list[Any]()

    class Watching(Middleware):
        def after_process_message(self, *args: Any, **more: Any) -> None:
            seen.append((late.hit, current_run()))

    broker.add_middleware(Watching())

    def act() -> None:
        late.begin()

    actor: Any = rl_actor(act, broker=broker)
    tasks = 0
    while tasks == 0 or late.hit:
        tasks += 1
        late.arm(tasks)
        actor.push()
        wait_until(lambda: len(seen) == tasks, 30, "the hook")  # noqa: B023
    assert [hit for hit, run in seen if run is not None] == []


class LateCancel(LateInterrupt):
    """Cancels the run at one of those lines, as its control channel does; the interrupt comes at once."""

    def _strike(self) -> None:
        sys.settrace(None)
        self.run.stop()
        if self.run.thread:
            self.run.is_interrupted = True
            raise TaskCancelled

    def begin(self) -> None:
        run = current_run()
        assert run is not None
        self.run = run
        super().begin()


@pytest.mark.usefixtures("worker")
def test_a_cancel_that_comes_after_the_user_code_interrupts_nobody_else(broker: StubBroker) -> None:
    late, store = LateCancel(), installation_of(broker).store
    beside: list[int] = []

    def act() -> None:
        late.begin()

    def follow() -> None:
        beside.append(sum(1 for _ in range(1000)))

    actor, innocent, tasks = rl_actor(act, broker=broker), rl_actor(follow, broker=broker), 0
    while tasks == 0 or late.hit:
        tasks += 1
        late.arm(tasks)
        receipt = actor.push()
        after = innocent.push()
        ends = ("completed", "discarded")
        wait_until(lambda: receipt.status() in ends, 30, f"an end after a cancel at {late.hit}")  # noqa: B023
        wait_until(lambda: after.status() == "completed", 30, f"the next task after a cancel at {late.hit}")  # noqa: B023
        assert late.runs == 1, late.hit
        broker.join("default", timeout=30_000, fail_fast=False)
    assert tasks > 15
    assert beside == [1000] * tasks
    counters = store.counters()
    assert counters["completed"] + counters.get("discarded:cancelled", 0) == 2 * tasks
    assert counters.get("failed", 0) == counters.get("handed_over", 0) == 0


@pytest.mark.parametrize(("options", "limit"), [({"time_limit": 2500}, "2.5 s"), ({}, "600 s")])
@pytest.mark.usefixtures("worker")
def test_a_task_that_a_time_limit_ended_tells_which(broker: StubBroker, options: dict[str, Any], limit: str) -> None:
    @rl_actor(broker=broker, store_results=True, **options)
    def act() -> None:
        raise TimeLimitExceeded  # Dramatiq, too, raises it without a text.

    with pytest.raises(TaskFailedError) as failed:
        act.push().result(timeout=30)
    assert failed.value.reason == "TimeLimitExceeded"
    assert f"It ran longer than the time_limit of 'act' ({limit})." in str(failed.value)
