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
            reply = line.call((number,))
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


def test_an_interrupted_caller_never_stops_the_others() -> None:
    """Dramatiq raises its time limits and shutdown notices in worker threads, between any two instructions."""
    line = SharedLine(echo)
    over = threading.Event()
    calls = [0] * 6
    wrong: list[object] = []

    def work(number: int) -> None:
        for n in itertools.count():
            if over.is_set():
                return
            try:
                reply = line.call(((number, n),))
                if reply != (number, n):
                    wrong.append(((number, n), reply))
                calls[number] += 1
            except (Interrupt, OSError):
                pass

    def work_on(number: int) -> None:
        while not over.is_set():
            with contextlib.suppress(Interrupt):
                work(number)

    threads = [threading.Thread(target=work_on, args=(i,), daemon=True) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    victims = itertools.cycle(threads)
    for _ in range(15):
        for _ in range(200):
            raise_thread_exception(next(victims).ident, Interrupt)  # type: ignore[no-untyped-call]
        before = list(calls)
        wait_until(lambda: all(a > b for a, b in zip(calls, before, strict=True)), 10, "calls of every thread")
    over.set()

    assert wrong == []
