"""Who is dead: judged by an observer whose clock and whose looks the test moves."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from relier import watch as watching
from relier.store.fleet import Signs
from relier.watch import LONGEST_HOLD, Watch

TTL = 2.0
CADENCE = 0.25


@dataclass
class World:
    """A fleet of which the test says what is to be seen; time passes with each look."""

    now: float = 100.0
    signs: dict[str, Signs] = field(default_factory=dict)
    present: set[str] = field(default_factory=lambda: {"observer"})
    session: int = 1

    def __post_init__(self) -> None:
        fleet = SimpleNamespace(
            present=lambda workers: {worker: worker in self.present for worker in workers},
            subscribed=lambda worker: worker in self.present,
            signs=lambda workers: {worker: self.signs[worker] for worker in workers if worker in self.signs},
        )
        world, subscribed = self, threading.Event()
        subscribed.set()

        class Control:
            @property
            def session(self) -> int:
                return world.session

        control: Any = Control()
        control.subscribed = subscribed
        store: Any = SimpleNamespace(fleet=fleet)
        self.watch = Watch(store, control, lambda: "observer", TTL, CADENCE)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def joins(self, worker: str, pulse: int | None = 0) -> None:
        self.signs[worker] = Signs(0, pulse)
        self.present.add(worker)

    def look(self, seconds: float, *, beating: bool = True, pulsing: bool = True) -> float:
        """Look on for `seconds`; returns after how many of them somebody was dead, or infinity."""
        start = self.now
        while self.now - start < seconds:
            self.now += CADENCE
            for worker, seen in self.signs.items():
                pulse = None if seen.pulse is None else seen.pulse + pulsing
                self.signs[worker] = Signs(seen.beat + beating, pulse)
            if self.watch.observe(self.signs):
                return self.now - start
        return float("inf")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(watching, "time", world)
    world.look(1)
    return world


def test_a_worker_that_beats_lives(world: World) -> None:
    world.joins("w")
    assert world.look(20 * TTL) == float("inf")


def test_a_worker_without_a_pulse_is_dead_after_a_ttl_without_a_beat(world: World) -> None:
    world.joins("w", pulse=None)
    world.look(TTL)
    assert TTL < world.look(20 * TTL, beating=False) <= TTL + 3 * CADENCE


def test_a_worker_whose_beat_and_pulse_stand_still_is_dead_after_a_ttl(world: World) -> None:
    world.joins("w")
    world.look(TTL)
    assert TTL < world.look(20 * TTL, beating=False, pulsing=False) <= TTL + 3 * CADENCE


def test_a_pulse_keeps_a_worker_that_cannot_beat_alive_up_to_a_bound(world: World) -> None:
    world.joins("w")
    world.look(TTL)
    bound = LONGEST_HOLD * TTL
    assert bound < world.look(3 * bound, beating=False) <= bound + 3 * CADENCE


def test_a_worker_that_beats_again_before_the_bound_lives(world: World) -> None:
    world.joins("w")
    for _ in range(3):
        assert world.look(0.9 * LONGEST_HOLD * TTL, beating=False) == float("inf")
        assert world.look(1) == float("inf")


def test_a_pulse_that_comes_and_goes_is_a_pulse(world: World) -> None:
    world.joins("w")
    for _ in range(5):
        assert world.look(0.8 * TTL, beating=False, pulsing=False) == float("inf")
        assert world.look(CADENCE, beating=False) == float("inf")


def test_a_worker_whose_subscription_is_gone_is_dead_whatever_its_pulse(world: World) -> None:
    world.joins("w")
    world.look(1)
    world.present.discard("w")
    assert world.look(TTL) <= 2 * CADENCE


def test_after_an_interruption_of_the_observer_the_pulse_keeps_a_worker_alive_that_is_not_subscribed(
    world: World,
) -> None:
    """The server restarted: the pulse's own connection comes back although a held interpreter cannot subscribe."""
    world.joins("w")
    world.look(1)
    world.session += 1
    world.present.discard("w")
    assert world.look(2 * TTL, beating=False) == float("inf")
    assert world.look(20 * TTL, beating=False, pulsing=False) < float("inf")


def test_a_pause_of_the_observer_starts_the_series_anew(world: World) -> None:
    world.joins("w")
    world.look(1)
    for _ in range(5):
        world.now += 100 * TTL
        assert world.look(0.9 * TTL, beating=False, pulsing=False) == float("inf")
