"""Kill workers at random moments, and tell how long their tasks waited to run again."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from relier_cli.demo.effects import Effects
from relier_cli.demo.fleet import Fleet, Worker

#: Kills happen between these parts of the work.
FIRST, LAST = 0.05, 0.8
#: Longest random wait (s) after the work has come far enough for a kill.
JITTER = 0.3


@dataclass(frozen=True)
class Plan:
    """One kill: how far the work must have come, how much longer to wait, and which worker it hits."""

    after: int
    wait: float
    place: int


def plans(seed: int, kills: int, files: int, workers: int) -> list[Plan]:
    """Choose the moments; the same seed chooses the same."""
    chance = random.Random(seed)
    width = (LAST - FIRST) / max(1, kills)
    return [
        Plan(
            after=int(files * (FIRST + width * (i + chance.random()))),
            wait=chance.uniform(0, JITTER),
            place=chance.randint(1, workers),
        )
        for i in range(kills)
    ]


@dataclass
class Death:
    """One SIGKILL and what became of the tasks that were running."""

    number: int
    worker: Worker
    at: float
    after: int  #: tasks done at that moment
    told: bool = False  #: whether the recovery was shown

    @property
    def orphans(self) -> set[str]:
        """The tasks that began in the killed process and did not end there."""
        return self.worker.effects.running

    def recoveries(self, effects: Effects) -> list[float]:
        """Return, for each orphan that runs again, seconds from the SIGKILL to that; the shortest first."""
        again = []
        for task in self.orphans:
            later = [at for worker, at in effects.runs_of(task) if worker is not self.worker.effects and at > self.at]
            again += later[:1]
        return sorted(at - self.at for at in again)

    def is_over(self, effects: Effects) -> bool:
        """Whether every orphan runs again."""
        return len(self.recoveries(effects)) == len(self.orphans)


class Killer:
    """Carries the plans out, one after the other."""

    def __init__(self, fleet: Fleet, effects: Effects, planned: list[Plan]) -> None:
        self._fleet = fleet
        self._effects = effects
        self._planned = planned
        self._not_before: float | None = None
        self.deaths: list[Death] = []

    @property
    def is_done(self) -> bool:
        return len(self.deaths) == len(self._planned)

    def step(self) -> Death | None:
        """Kill a worker if it is time to: all are at work, and the last death is recovered from."""
        if self.is_done or not self._is_time(self._planned[len(self.deaths)]):
            return None
        plan = self._planned[len(self.deaths)]
        worker = next(worker for worker in self._fleet.workers if worker.place == plan.place)
        worker.kill()
        assert worker.killed_at is not None
        death = Death(len(self.deaths) + 1, worker, worker.killed_at, len(self._effects.tasks_done))
        self.deaths.append(death)
        self._not_before = None
        return death

    def _is_time(self, plan: Plan) -> bool:
        if len(self._effects.tasks_done) < plan.after:
            return False
        if not all(worker.working for worker in self._fleet.workers):
            return False
        if self.deaths and not self.deaths[-1].is_over(self._effects):
            return False
        if self._not_before is None:
            self._not_before = time.monotonic() + plan.wait
        return time.monotonic() >= self._not_before
