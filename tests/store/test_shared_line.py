"""Threads that share round trips, and are interrupted while they do."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Sequence

import pytest
from dramatiq.threading import Interrupt, raise_thread_exception

from relier.store.shared_line import Command, SharedLine
from tests.waiting import wait_until


def echo(commands: Sequence[Command]) -> list[object]:
    return [command[0] for command in commands]


def test_every_caller_gets_its_own_reply() -> None:
    line = SharedLine(echo)
    wrong: list[object] = []

    def call(first: int) -> None:
        for number in range(first, first + 500):
            (reply,) = line.call((number,))
            if reply != number:
                wrong.append((number, reply))

    threads = [threading.Thread(target=call, args=(i * 1000,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert wrong == []
    assert not any(thread.is_alive() for thread in threads)


def test_all_callers_of_a_failed_exchange_get_its_error() -> None:
    def fail(commands: Sequence[Command]) -> list[object]:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        SharedLine(fail).call((1,))


class Callers:
    """Threads that call a line for ever and survive interrupts."""

    def __init__(self, line: SharedLine, count: int) -> None:
        self.line = line
        self.over = threading.Event()
        self.calls = [0] * count
        self.wrong: list[object] = []
        self.threads = [threading.Thread(target=self._go_on, args=(i,), daemon=True) for i in range(count)]
        for thread in self.threads:
            thread.start()

    def _go_on(self, number: int) -> None:
        while not self.over.is_set():
            with contextlib.suppress(Interrupt):
                self._work(number)

    def _work(self, number: int) -> None:
        for n in itertools.count():
            if self.over.is_set():
                return
            with contextlib.suppress(Interrupt, OSError):
                (reply,) = self.line.call(((number, n),))
                if reply != (number, n):
                    self.wrong.append(((number, n), reply))
                self.calls[number] += 1

    def wait_for_calls(self) -> None:
        """Wait until every thread made another call."""
        before = list(self.calls)
        wait_until(lambda: all(a > b for a, b in zip(self.calls, before, strict=True)), 60, "calls of every thread")


def test_an_interrupted_caller_never_stops_the_others() -> None:
    """Dramatiq raises its time limits and shutdown notices in worker threads, between any two instructions."""
    callers = Callers(SharedLine(echo), 6)
    victims = itertools.cycle(callers.threads)

    for _ in range(15):
        for _ in range(200):
            raise_thread_exception(next(victims).ident, Interrupt)  # type: ignore[no-untyped-call]
        callers.wait_for_calls()
    callers.over.set()

    assert callers.wrong == []
