"""Tells which workers are dead: by the absence of their subscription, or by signs of life that stand still."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relier.control import ControlChannel
from relier.store import Store
from relier.store.fleet import Signs

#: Time (s) between the two observations of an absence that together mean death.
CONFIRM_AFTER = 0.1
#: A worker that this observer never saw subscribed is dead when absent, and without any sign, for this long (s).
UNSEEN_FOR = 3.0
#: The same after this observer's own connection was interrupted: others may take longer to find the store again, where
#: a server was replaced and the old one hangs.
UNSEEN_AFTER_INTERRUPTION = 8.0
#: A worker that only its pulse keeps alive, because its interpreter is held, is dead after this many times
#: `RELIER_HEARTBEAT_TTL` without a beat.
LONGEST_HOLD = 12
#: An observation that comes later (s) than this after the last one proves nothing about the time in between.
LARGEST_GAP = 1.0


@dataclass(slots=True)
class _Still:
    """Since when, and for how many observations in a row at normal cadence, a counter has not moved."""

    value: Any
    since: float
    looks: int = 0

    def note(self, value: Any, now: float, interrupted: bool) -> None:
        if self.value != value or interrupted:
            self.value, self.since, self.looks = value, now, 0
        else:
            self.looks += 1

    def lasts(self, seconds: float, looks: int, now: float) -> bool:
        return now - self.since > seconds and self.looks >= looks


@dataclass(slots=True)
class _Worker:
    beat: _Still
    any_sign: _Still  #: beat and pulse: the pulse goes on while a task holds the interpreter
    seen_in: int = -1  #: the observer's session in which the subscription was last seen
    absent_since: float | None = None
    absent_in: int = -1

    def note(self, signs: Signs, now: float, interrupted: bool) -> None:
        self.beat.note(signs.beat, now, interrupted)
        self.any_sign.note(signs, now, interrupted)


class Watch:
    """One observer's memory of the fleet. Nothing in here compares clocks of different machines.

    Parameters:
      store: where the fleet is.
      control: the observer's own subscription: the canary. What was seen before its last interruption is void.
      identity: the observer's own worker id.
      ttl: seconds without any sign of life that mean death; `LONGEST_HOLD` times as long without a beat do, too.
      cadence: normal seconds between two observations.
    """

    def __init__(
        self, store: Store, control: ControlChannel, identity: Callable[[], str], ttl: float, cadence: float
    ) -> None:
        self._store = store
        self._control = control
        self._identity = identity
        self._ttl = ttl
        self._enough_looks = max(3, int(min(ttl, ttl / max(cadence, 0.01)) * 0.5))
        self._gap = max(LARGEST_GAP, 4 * cadence)
        self._workers: dict[str, _Worker] = {}
        self._last = 0.0
        self._last_session = -1
        self._first_session = control.session
        self._unseen_for = max(UNSEEN_FOR, min(UNSEEN_AFTER_INTERRUPTION, ttl))

    def observe(self, signs: dict[str, Signs]) -> list[str]:
        """Look once; returns the workers that are dead. Confirms an absence by a second look after a moment."""
        others = [worker for worker in signs if worker != self._identity()]
        self._note({worker: signs[worker] for worker in others}, time.monotonic())
        if self._look(others):
            time.sleep(CONFIRM_AFTER)
            self._look([w for w in others if self._workers[w].absent_since is not None])
        now = time.monotonic()
        return [worker for worker in others if self._is_dead(self._workers[worker], now)]

    def absent(self, workers: list[str]) -> set[str]:
        """Look at a few workers only; returns those that were seen and are dead.

        Their signs of life are noted as well: should this observer watch one day, it need not begin to count then.
        """
        for worker in [worker for worker in self._workers if worker not in workers]:
            del self._workers[worker]
        if not workers:
            return set()
        now = time.monotonic()
        self._note(self._store.fleet.signs(workers), now)
        self._last_session = -1  # Who is unknown at the next full look need not have appeared since this one.
        for worker in workers:
            self._workers.setdefault(worker, _unknown(Signs(0), now))
        if self._look(workers):
            time.sleep(CONFIRM_AFTER)
            self._look(workers)
        now = time.monotonic()
        return {worker for worker in workers if self._absent_long_enough(self._workers[worker], now)}

    def forget(self, worker: str) -> None:
        self._workers.pop(worker, None)

    def _note(self, signs: dict[str, Signs], now: float) -> None:
        interrupted = now - self._last > self._gap
        session = self._control.session
        watching = session == self._last_session and not interrupted
        self._last, self._last_session = now, session
        for worker in [worker for worker in self._workers if worker not in signs]:
            del self._workers[worker]
        for worker, seen in signs.items():
            known = self._workers.get(worker)
            if known is None:
                # One that appeared under our eyes and was subscribed then counts as seen.
                appeared = watching and self._store.fleet.subscribed(worker)
                known = self._workers[worker] = _unknown(seen, now)
                known.seen_in = session if appeared else -1
            else:
                known.note(seen, now, interrupted)

    def _look(self, workers: list[str]) -> bool:
        """Look at subscriptions; returns whether one that was there is newly absent. Void without the canary."""
        session, own = self._control.session, self._identity()
        if not self._control.subscribed.is_set():
            return False
        present = self._store.fleet.present([own, *workers])
        if not present[own] or self._control.session != session:
            return False
        now, news = time.monotonic(), False
        for worker in workers:
            known = self._workers[worker]
            if present[worker]:
                known.seen_in, known.absent_since = session, None
            elif known.absent_since is None or known.absent_in != session:
                known.absent_since, known.absent_in = now, session
                news = news or known.seen_in == session
        return news

    def _is_dead(self, worker: _Worker, now: float) -> bool:
        if worker.any_sign.lasts(self._ttl, self._enough_looks, now):
            return True
        if worker.beat.lasts(LONGEST_HOLD * self._ttl, self._enough_looks, now):
            return True
        if self._absent_long_enough(worker, now):
            return True
        absent = worker.absent_since is not None and worker.absent_in == self._control.session
        unseen_for = UNSEEN_FOR if self._control.session == self._first_session else self._unseen_for
        absent = absent and now - (worker.absent_since or now) > unseen_for
        return absent and worker.any_sign.lasts(unseen_for, 3, now)

    def _absent_long_enough(self, worker: _Worker, now: float) -> bool:
        if worker.absent_since is None or worker.absent_in != self._control.session:
            return False
        return worker.seen_in == worker.absent_in and now - worker.absent_since >= CONFIRM_AFTER * 0.9


def _unknown(signs: Signs, now: float) -> _Worker:
    """Return what is known of a worker at the first look."""
    return _Worker(_Still(signs.beat, now), _Still(signs, now))
