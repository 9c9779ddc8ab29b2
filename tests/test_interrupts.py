"""An interrupt reaches the code for which it is meant, at any moment, and nothing else."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from relier import TaskCancelled, interrupts


class Run:
    """What `relier.interrupts` knows of a run."""

    def __init__(self) -> None:
        self.thread = 0
        self.is_interrupted = False
        self.hits = 0


@pytest.fixture
def switches() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def work(run: Any, turns: int) -> None:
    """Run a bit of code that may be interrupted, and leave it as an execution does."""
    has_begun = False
    while True:
        try:
            if not has_begun:
                has_begun = True
                interrupts.admit(run)
                for _ in range(turns):
                    time.sleep(0)  # It is the other thread's turn.
            interrupts.shut(run)
            return
        except TaskCancelled:
            run.hits += 1


@pytest.mark.usefixtures("switches")
def test_only_the_code_that_may_be_interrupted_is() -> None:
    now: list[Any] = [Run()]
    over = threading.Event()

    def strike() -> None:
        while not over.is_set():
            interrupts.interrupt(now[0])
            time.sleep(0)

    striker = threading.Thread(target=strike, daemon=True)
    striker.start()
    runs = between = hits = 0
    deadline = time.monotonic() + 60
    try:
        while hits < 1000 and time.monotonic() < deadline:
            runs += 1
            now[0] = run = Run()
            work(run, runs % 4)
            hits += run.hits > 0
            for _ in range(5):  # The thread's next task: an interrupt here would end the test.
                time.sleep(0)
                between += 1
    finally:
        over.set()
        striker.join()

    assert between == 5 * runs
    assert hits == 1000


def test_code_that_is_over_is_left_alone() -> None:
    run: Any = Run()
    interrupts.interrupt(run)
    assert not run.is_interrupted
    interrupts.admit(run)
    interrupts.shut(run)
    interrupts.interrupt(run)
    assert not run.is_interrupted


def test_code_that_swallows_one_interrupt_gets_the_next() -> None:
    run: Any = Run()
    interrupts.admit(run)
    for _ in range(2):
        with pytest.raises(TaskCancelled):
            interrupts.interrupt(run)
            for _ in range(20):
                pass
    interrupts.shut(run)
