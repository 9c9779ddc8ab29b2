"""Suspects run one at a time in a process, and a task on its last chance runs alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from relier import quarters
from relier.quarters import Quarters
from relier.store import Suspicion
from tests.waiting import wait_until

NONE, SUSPECT, LAST = Suspicion


class Lodger:
    """A worker thread."""

    def __init__(self, house: Quarters) -> None:
        self.house = house
        self.thread = ThreadPoolExecutor(1)

    def enters(self, suspicion: Suspicion) -> Callable[[], bool]:
        """Begin to enter; returns what waits for it, and then tells whether a suspect may run."""
        entering = self.thread.submit(self.house.enter, suspicion)
        wait_until(lambda: entering.done() or _waits(self.house), 60, "a thread that is inside or waits")
        self.inside = entering.done
        return lambda: entering.result(30)

    def leaves(self) -> None:
        self.thread.submit(self.house.leave).result(30)


def _waits(house: Quarters) -> bool:
    return bool(getattr(house._changed, "_waiters", ()))


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> Quarters:
    monkeypatch.setattr(quarters, "WAIT_FOR_OTHERS", 3600.0)
    monkeypatch.setattr(quarters, "ALONE_FOR", 3600.0)
    return Quarters()


@pytest.fixture
def lodgers(house: Quarters) -> Iterator[list[Lodger]]:
    lodgers = [Lodger(house) for _ in range(3)]
    yield lodgers
    for lodger in lodgers:
        lodger.thread.shutdown()


def test_ordinary_tasks_run_beside_each_other_and_beside_a_suspect(lodgers: list[Lodger]) -> None:
    assert [lodger.enters(what)() for lodger, what in zip(lodgers, (NONE, SUSPECT, NONE), strict=True)][1]


def test_a_second_suspect_is_told_to_wait_its_turn(lodgers: list[Lodger]) -> None:
    first, second, _ = lodgers
    assert first.enters(SUSPECT)()
    assert not second.enters(SUSPECT)()
    second.leaves()
    first.leaves()
    assert second.enters(SUSPECT)()


def test_a_task_on_its_last_chance_starts_when_its_neighbours_have_ended(lodgers: list[Lodger]) -> None:
    first, last, _ = lodgers
    first.enters(NONE)()
    entered = last.enters(LAST)
    assert not last.inside()
    first.leaves()
    assert entered()


def test_nothing_starts_beside_a_task_on_its_last_chance(lodgers: list[Lodger]) -> None:
    last, second, third = lodgers
    assert last.enters(LAST)()
    entered = second.enters(NONE)
    assert not second.inside()
    assert not third.enters(LAST)()
    third.leaves()
    last.leaves()
    entered()


def test_neither_wait_is_for_ever(house: Quarters, lodgers: list[Lodger], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarters, "WAIT_FOR_OTHERS", 0.01)
    monkeypatch.setattr(quarters, "ALONE_FOR", 0.01)
    neighbour, last, later = lodgers
    neighbour.enters(NONE)()
    assert last.enters(LAST)()
    later.enters(NONE)()


def test_nothing_begins_before_the_process_has_booted(house: Quarters, lodgers: list[Lodger]) -> None:
    house.begin_boot()
    entering = lodgers[0].thread.submit(house.enter, SUSPECT)
    assert not entering.done()
    house.end_boot()
    assert entering.result(30)


def test_a_thread_that_was_interrupted_before_it_left_is_counted_once(house: Quarters) -> None:
    assert house.enter(SUSPECT)
    assert house.enter(SUSPECT)
    house.leave()
    house.leave()
