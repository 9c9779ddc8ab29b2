"""Which worker can run what: it consumes the task's queue, and its code has the actor."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from dramatiq import Broker

from relier.queues import is_internal
from relier.store import Store

#: What a worker told at registration.
Told = Mapping[str, Any]


def actors_of(broker: Broker) -> tuple[str, ...]:
    """Return the names of the actors whose tasks a process of this broker can run."""
    return tuple(sorted(name for name, actor in broker.actors.items() if not is_internal(actor.queue_name)))


def digest(actors: Iterable[str]) -> str:
    """Return the short name of a set of actors.

    Workers of one release register with it; the names themselves are in the store once.
    """
    return hashlib.sha256(json.dumps(sorted(actors)).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the living workers can run.

    A worker that tells nothing of its actors, as one of an older version, is taken to have them all: it shows what it
    lacks when it gets it.
    """

    #: Each queue's consumers: the actors that each has, None for all.
    consumers: Mapping[str, set[frozenset[str] | None]] = field(default_factory=dict)
    #: The same of every worker, also of those that consume another broker.
    everybody: Set[frozenset[str] | None] = frozenset()

    @classmethod
    def of(
        cls,
        workers: Iterable[Told],
        actors: Mapping[str, frozenset[str]],
        is_reached: Callable[[Told], bool] = lambda told: True,
    ) -> Knowledge:
        """Read what workers told at registration; `actors` are the sets of names by digest."""
        consumers: dict[str, set[frozenset[str] | None]] = {}
        everybody = set()
        for told in workers:
            has = actors.get(str(told.get("actors")))
            if told.get("role") != "resurrector":
                everybody.add(has)
            for queue in told.get("queues", ()) if is_reached(told) else ():
                consumers.setdefault(queue, set()).add(has)
        return cls(consumers, everybody)

    @property
    def queues(self) -> set[str]:
        """The queues that somebody consumes."""
        return set(self.consumers)

    def can_run(self, queue: str, actor: str) -> bool:
        """Whether somebody consumes the queue and has the actor."""
        return any(has is None or actor in has for has in self.consumers.get(queue, ()))

    def has(self, actor: str) -> bool:
        """Whether any worker has the actor, whatever it consumes."""
        return any(has is None or actor in has for has in self.everybody)


class FleetView:
    """What a sweeper saw of the workers at its last look.

    Parameters:
      store: where they are registered.
      is_reached: whether a worker consumes the broker that the sweeper publishes to.
    """

    def __init__(self, store: Store, is_reached: Callable[[Told], bool] = lambda told: True) -> None:
        self._store = store
        self._is_reached = is_reached
        self._at = 0.0
        #: How many looks there were.
        self.looks = 0
        self.workers: frozenset[str] = frozenset()
        self.knowledge = Knowledge()

    def look(self) -> None:
        """Read who is there, and what each can run."""
        workers, actors = self._store.fleet.knowledge()
        self.workers, self.knowledge = frozenset(workers), Knowledge.of(workers.values(), actors, self._is_reached)
        self.looks += 1
        self._at = time.monotonic()

    def is_older_than(self, seconds: float) -> bool:
        return not self.looks or time.monotonic() - self._at > seconds
