"""Which worker can run what: it consumes the queue, and its code has the actor and knows the payload's version."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from dramatiq import Broker

from relier.queues import is_internal
from relier.sending import payload_version
from relier.store import Store
from relier.store.holds import NO_HOLDS, Holds

#: What a worker told at registration.
Told = Mapping[str, Any]


#: The actors of one release, and the newest payload version of each that it can run; None: any, for all it told.
Actors = Mapping[str, int | None]


def actors_of(broker: Broker) -> dict[str, int]:
    """Return the actors whose tasks a process of this broker can run, with the newest payload version of each."""
    names = sorted(name for name, actor in broker.actors.items() if not is_internal(actor.queue_name))
    return {name: payload_version(broker, name) for name in names}


def newness(broker: Broker) -> int:
    """Return a number that grows from release to release as payloads change."""
    return sum(version - 1 for version in actors_of(broker).values())


def digest(actors: Mapping[str, int]) -> str:
    """Return the short name of a release's actors and versions.

    Its workers register with it; the names themselves are in the store once.
    """
    return hashlib.sha256(json.dumps(sorted(actors.items())).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Code:
    """What the workers of one release can run."""

    digest: str
    newest: Actors = field(compare=False)
    #: Names what was loaded (see `relier.application`); '' where that does not matter to anybody.
    source: str = ""

    def knows(self, actor: str, version: int) -> bool:
        if actor not in self.newest:
            return False
        newest = self.newest[actor]
        return newest is None or version <= newest


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the living workers can run.

    A worker that tells nothing of its actors, or of their versions, as one of an older Relier, is taken to have them
    all: it shows what it lacks when it gets it.
    """

    #: Each queue's consumers: the code that each has, None for all.
    consumers: Mapping[str, set[Code | None]] = field(default_factory=dict)
    #: The same of every worker, also of those that consume another broker.
    everybody: Set[Code | None] = frozenset()

    @classmethod
    def of(
        cls,
        workers: Iterable[Told],
        actors: Mapping[str, Actors],
        is_reached: Callable[[Told], bool] = lambda told: True,
    ) -> Knowledge:
        """Read what workers told at registration; `actors` are those of each release, by digest."""
        consumers: dict[str, set[Code | None]] = {}
        everybody = set()
        for told in workers:
            names = str(told.get("actors"))
            has = Code(names, actors[names], str(told.get("code", ""))) if names in actors else None
            if told.get("role") != "resurrector":
                everybody.add(has)
            for queue in told.get("queues", ()) if is_reached(told) else ():
                consumers.setdefault(queue, set()).add(has)
        return cls(consumers, everybody)

    @property
    def queues(self) -> set[str]:
        """The queues that somebody consumes."""
        return set(self.consumers)

    def can_run(self, queue: str, actor: str, version: int = 1) -> bool:
        """Whether somebody consumes the queue, has the actor, and knows payloads of this version."""
        return any(has is None or has.knows(actor, version) for has in self.consumers.get(queue, ()))

    def sources(self, queue: str, actor: str, version: int = 1) -> set[str]:
        """Return which code could run a task."""
        return _sources(self.consumers.get(queue, ()), actor, version)

    def all_sources(self, actor: str) -> set[str]:
        """Return which code of an actor lives, whatever it consumes."""
        return _sources(self.everybody, actor, 0)

    def has(self, actor: str, version: int = 0) -> bool:
        """Whether any worker has the actor (and knows this version of its payload), whatever it consumes."""
        return any(has is None or has.knows(actor, version) for has in self.everybody)


def _sources(everybody: Iterable[Code | None], actor: str, version: int) -> set[str]:
    return {has.source if has else "" for has in everybody if has is None or has.knows(actor, version)}


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
        #: What is held.
        self.holds: Holds = NO_HOLDS

    def look(self) -> None:
        """Read who is there, what each can run, and what is held."""
        workers, actors, self.holds = self._store.fleet.knowledge()
        self.workers, self.knowledge = frozenset(workers), Knowledge.of(workers.values(), actors, self._is_reached)
        self.looks += 1
        self._at = time.monotonic()

    def is_older_than(self, seconds: float) -> bool:
        return not self.looks or time.monotonic() - self._at > seconds
