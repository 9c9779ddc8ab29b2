"""What `rl top` and `rl ui` show: a running system at one moment. Never an argument, a payload or a secret."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from dramatiq import Broker

from relier.queue_states import QueueState, QueueStates
from relier.settings import Settings
from relier.slo import REFUSED, Burn, burn_rates
from relier.store import SHARDS, Store
from relier.store.statistics import BOUNDS, Histogram, Row
from relier.store.survey import Summary, Survey
from relier_cli.inflight import p95
from relier_cli.inflight import row as task_row
from relier_cli.output import iso
from relier_cli.queue import row as queue_row
from relier_cli.slo import described_burn
from relier_cli.worker import Fleet
from relier_cli.worker import fetch as fetch_fleet

T = TypeVar("T")

#: Over so many seconds rates are told, and what is rarer: crashes, percentiles.
SHORT, LONG = 60.0, 300.0
#: What is counted over the long one, for each actor and together.
COUNTED = ("completed", "failed", "retries", "crashes", "resurrections", "dead", "discarded")
#: Most running tasks, and events, that are told one by one.
MOST_TASKS, MOST_EVENTS = 200, 10
#: How much of the time one part of a view may take: where much waits, it is looked at less often.
SHARE = 0.1


class Paced(Generic[T]):
    """Looks at something again when it is older than it takes long to look at.

    Parameters:
      look: reads it.
      every: how often (s) it is read at most.
    """

    def __init__(self, look: Callable[[], T], every: float) -> None:
        self._look = look
        self._every = every
        self._seen: T | None = None
        self._next = 0.0

    def __call__(self) -> T:
        begin = time.monotonic()
        if self._seen is None or begin >= self._next:
            self._seen = self._look()
            end = time.monotonic()
            self._next = end + max(self._every, (end - begin) / SHARE)
        return self._seen


@dataclass(frozen=True, slots=True)
class ActorRates:
    """What the tasks of one actor did lately, in all queues."""

    actor: str
    #: Completions, failed attempts and dead letters a second.
    completed: float
    failed: float
    dead: float
    #: What came to pass in five minutes.
    counts: dict[str, int]
    #: 95 % of its tasks waited, and ran, for less (s); None where there were none.
    p95_wait: float | None
    p95_run: float | None


@dataclass(frozen=True, slots=True)
class View:
    """A system at one moment."""

    now: float
    fleet: Fleet
    running: list[Summary]
    #: Ended tasks whose callbacks run.
    callbacks: int
    queues: list[QueueState]
    actors: list[ActorRates]
    burns: list[Burn]
    dead_letters: int
    events: list[dict[str, str]]
    #: What is parked, and what the broker said when it did not answer.
    parked: list[str] = field(default_factory=list)
    trouble: str = ""

    @property
    def counted(self) -> dict[str, int]:
        """What came to pass in five minutes, of all actors."""
        return {name: sum(rates.counts[name] for rates in self.actors) for name in COUNTED}

    def data(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        ages = [max(0.0, self.now - task.granted_at) for task in self.running]
        tasks = [task_row(task, age) for task, age in zip(self.running, ages, strict=True)]
        return {
            "at": iso(self.now),
            "workers": [_worker(worker) for worker in self.fleet.workers],
            "sweepers": self.fleet.sweepers,
            "running": {
                "tasks": len(tasks),
                "callbacks": self.callbacks,
                "p95_seconds": round(p95(ages), 3) if ages else None,
                "longest": tasks[:MOST_TASKS],
            },
            "queues": [queue_row(state, self.now) for state in self.queues],
            "actors": [_rates(rates) for rates in self.actors],
            "objectives": [described_burn(burn) for burn in self.burns],
            "dead_letters": self.dead_letters,
            "last_5_minutes": self.counted,
            "events": [described_event(event) for event in self.events],
            "parked": self.parked,
            "trouble": self.trouble or None,
        }


def _worker(worker: Any) -> dict[str, Any]:
    names = ("id", "role", "state", "host", "pid", "queues", "threads", "tasks", "uptime")
    return {name: getattr(worker, name) for name in names}


def _rates(rates: ActorRates) -> dict[str, Any]:
    per_second = {name: round(getattr(rates, name), 4) for name in ("completed", "failed", "dead")}
    return {
        "actor": rates.actor,
        "per_second": per_second,
        "last_5_minutes": rates.counts,
        "p95_wait_seconds": rates.p95_wait,
        "p95_run_seconds": rates.p95_run,
    }


def described_event(event: dict[str, str]) -> dict[str, Any]:
    """Return an event without what it says of errors."""
    told = {name: event.get(name) for name in ("event", "task", "worker")}
    return {"at": iso(int(event.get("at", 0)) / 1e6), **told}


class Looker:
    """Looks at a system again and again; what takes long, less often.

    Parameters:
      store: where everything is known.
      broker: where messages wait; may be away.
      declared: queues that are shown although nobody is there.
    """

    def __init__(self, store: Store, broker: Broker, settings: Settings, declared: Iterable[str] = ()) -> None:
        self._store, self._settings = store, settings
        self._broker, self._declared = broker, {*settings.public_queues, *declared}
        self._survey = Survey(store)
        self._tasks = Paced(self._owned, 0.0)
        self._queues = Paced(self._measured, 1.0)
        self._actors = Paced(self._counted, 1.0)
        self._burns = Paced(lambda: burn_rates(store, settings), 15.0)
        self._rest = Paced(self._noted, 1.0)

    def look(self) -> View:
        """Return what there is now. Raises redis-py's errors when the store is away."""
        fleet, running, callbacks = self._tasks()
        queues, parked, trouble = self._queues()
        dead_letters, events = self._rest()
        now = self._survey.now()
        actors, burns = self._actors(), self._burns()
        return View(now, fleet, running, callbacks, queues, actors, burns, dead_letters, events, parked, trouble)

    def _owned(self) -> tuple[Fleet, list[Summary], int]:
        fleet = fetch_fleet(self._store, self._settings)
        owned = self._survey.some(self._survey.owned_by(worker.id for worker in fleet.workers if worker.tasks)).values()
        running = (task for task in owned if task.state == "r")
        longest_first = sorted(running, key=lambda task: (task.granted_at, task.task_id))
        return fleet, longest_first, sum(task.state == "h" for task in owned)

    def _measured(self) -> tuple[list[QueueState], list[str], str]:
        states = QueueStates(self._store, self._broker, self._declared)
        return states.all(), [hold.name for hold in states.parked], states.trouble

    def _counted(self) -> list[ActorRates]:
        now = self._survey.now()
        short, long = self._store.statistics.windows(SHORT, LONG)
        return rates_of(short, long, length_of(now, SHORT))

    def _noted(self) -> tuple[int, list[dict[str, str]]]:
        keys = [self._store.keys.shard(shard, "") for shard in range(SHARDS)]
        letters = self._store.runner.commands(("ZCARD", shard[5]) for shard in keys)
        return sum(map(int, letters)), self._store.events(MOST_EVENTS)


def length_of(now: float, window: float) -> float:
    """Return how long (s) a window of the statistics is in truth: it begins at the nearest whole minute."""
    return now - round((now - window) / 60) * 60


def rates_of(short: Iterable[Row], long: Iterable[Row], seconds: float) -> list[ActorRates]:
    """Return the rates of every actor, the busiest first; `short` covers so many seconds."""
    lately = _by_actor(short)
    found = []
    for actor, rows in _by_actor(long).items():
        counts = {name: sum(row[name] for row in rows) for name in COUNTED}
        completed, failed, dead = (
            sum(row[name] for row in lately.get(actor, ())) / seconds for name in ("completed", "failed", "dead")
        )
        waits, runs = (quantile(0.95, (getattr(row, name) for row in rows)) for name in ("waits", "runs"))
        found.append(ActorRates(actor, completed, failed, dead, counts, waits, runs))
    return sorted(found, key=lambda rates: (-rates.completed, -sum(rates.counts.values()), rates.actor))


def _by_actor(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.queue:  # Else it is of no task.
            found.setdefault(row.actor or REFUSED, []).append(row)
    return found


def quantile(q: float, histograms: Iterable[Histogram]) -> float | None:
    """Return below what (s) so large a part of it all was, evenly spread within a bucket; None when there was nothing.

    What is above all bounds counts as the last of them, so that is the largest answer.
    """
    counts = [sum(column) for column in zip(*(histogram.counts for histogram in histograms), strict=True)]
    wanted, before, lower = q * sum(counts), 0, 0.0
    for bound, count in zip(BOUNDS, counts, strict=False):
        if count and before + count >= wanted:
            found: float = lower + (bound - lower) * (wanted - before) / count
            return round(found, 6)
        before, lower = before + count, bound
    return BOUNDS[-1] if any(counts) else None
