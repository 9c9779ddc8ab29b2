"""Tells which workers are dead: by the absence of their subscription, or by beats that stand still."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from relier.control import ControlChannel
from relier.store import Store

#: Time (s) between the two observations of an absence that together mean death.
CONFIRM_AFTER = 0.1
#: A worker that this observer never saw subscribed is dead when absent, and its beat still, for this long (s).
UNSEEN_FOR = 3.0
#: An observation that comes later (s) than this after the last one proves nothing about the time in between.
LARGEST_GAP = 1.0


@dataclass(slots=True)
class _Worker:
    beat: int
    beat_since: float
    looks: int = 0  #: observations in a row, at normal cadence, with the beat unmoved
    seen_in: int = -1  #: the observer's session in which the subscription was last seen
    absent_since: float | None = None
    absent_in: int = -1


class Watch:
    """One observer's memory of the fleet. Nothing in here compares clocks of different machines.

    Parameters:
      store: where the fleet is.
      control: the observer's own subscription: the canary. What was seen before its last interruption is void.
      identity: the observer's own worker id.
      ttl: seconds after which an unmoved beat means death.
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

    def observe(self, beats: dict[str, int]) -> list[str]:
        """Look once; returns the workers that are dead. Confirms an absence by a second look after a moment."""
        others = [worker for worker in beats if worker != self._identity()]
        self._note_beats({worker: beats[worker] for worker in others}, time.monotonic())
        if self._look(others):
            time.sleep(CONFIRM_AFTER)
            self._look([w for w in others if self._workers[w].absent_since is not None])
        now = time.monotonic()
        return [worker for worker in others if self._is_dead(self._workers[worker], now)]

    def absent(self, workers: list[str]) -> set[str]:
        """Look at a few workers only; returns those that were seen and are dead.

        Their beats are noted as well: should this observer watch one day, it need not begin to count then.
        """
        for worker in [worker for worker in self._workers if worker not in workers]:
            del self._workers[worker]
        if not workers:
            return set()
        now = time.monotonic()
        self._note_beats(self._store.fleet.beats(workers), now)
        self._last_session = -1  # Who is unknown at the next full look need not have appeared since this one.
        for worker in workers:
            self._workers.setdefault(worker, _Worker(0, now))
        if self._look(workers):
            time.sleep(CONFIRM_AFTER)
            self._look(workers)
        now = time.monotonic()
        return {worker for worker in workers if self._absent_long_enough(self._workers[worker], now)}

    def forget(self, worker: str) -> None:
        self._workers.pop(worker, None)

    def _note_beats(self, beats: dict[str, int], now: float) -> None:
        interrupted = now - self._last > self._gap
        session = self._control.session
        watching = session == self._last_session and not interrupted
        self._last, self._last_session = now, session
        for worker in [worker for worker in self._workers if worker not in beats]:
            del self._workers[worker]
        for worker, beat in beats.items():
            known = self._workers.get(worker)
            if known is None:
                # One that appeared under our eyes and was subscribed then counts as seen.
                appeared = watching and self._store.fleet.subscribed(worker)
                self._workers[worker] = _Worker(beat, now, seen_in=session if appeared else -1)
            elif known.beat != beat or interrupted:
                known.beat, known.beat_since, known.looks = beat, now, 0
            else:
                known.looks += 1

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
        still = now - worker.beat_since
        if still > self._ttl and worker.looks >= self._enough_looks:
            return True
        if self._absent_long_enough(worker, now):
            return True
        absent = worker.absent_since is not None and worker.absent_in == self._control.session
        return absent and worker.looks >= 3 and min(still, now - (worker.absent_since or now)) > UNSEEN_FOR

    def _absent_long_enough(self, worker: _Worker, now: float) -> bool:
        if worker.absent_since is None or worker.absent_in != self._control.session:
            return False
        return worker.seen_in == worker.absent_in and now - worker.absent_since >= CONFIRM_AFTER * 0.9
