"""What is known of each queue: what waits in it, who consumes it, whether it is paused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from dramatiq import Broker
from dramatiq.errors import BrokerConnectionError

from relier.brokers.adapters import adapter_of
from relier.brokers.generic import Adapter
from relier.brokers.place import Place
from relier.queues import is_internal
from relier.store import Store
from relier.store.connection import UNAVAILABLE
from relier.store.holds import Hold
from relier.store.waiting import Waiting, waiting_by_queue

T = TypeVar("T")

_AWAY: tuple[type[Exception], ...] = (*UNAVAILABLE, BrokerConnectionError)


@dataclass(slots=True)
class QueueState:
    """One queue on one broker. Times are seconds since the epoch."""

    name: str
    broker: str  #: where it is
    #: Messages that wait in the broker; None where it cannot tell.
    depth: int | None = None
    #: When the message at its head was made, on its producer's clock; None where the broker cannot tell.
    oldest_message: float | None = None
    #: What waits in the store: it belongs to no broker, and is told with the one that this process uses.
    waiting: Waiting = field(default_factory=Waiting)
    #: Living workers that consume it.
    consumers: list[str] = field(default_factory=list)
    paused: Hold | None = None
    #: Whether an actor that this process knows, or the settings, declare it.
    declared: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known to wait in it."""
        return not (self.depth or self.waiting.due or self.waiting.scheduled or self.waiting.published)


class QueueStates:
    """Looks at queues from outside.

    Parameters:
      store: where tasks, workers and holds are.
      broker: where messages are; may be away, then only the store tells.
      declared: the queues that somebody declares.
    """

    def __init__(self, store: Store, broker: Broker, declared: Iterable[str]) -> None:
        self._store = store
        self._adapter: Adapter = adapter_of(broker)
        self._declared = {queue for queue in declared if not is_internal(queue)}
        #: What the broker said when it did not answer.
        self.trouble = ""
        #: The actors that are parked, by name; known after `all`.
        self.parked: list[Hold] = []

    def all(self) -> list[QueueState]:
        """Return every queue that anybody knows of, by name."""
        told, _, holds = self._store.fleet.knowledge()
        self.parked = sorted(holds.actors.values(), key=lambda hold: hold.name)
        waiting = waiting_by_queue(self._store)
        place = self._adapter.place()
        here, elsewhere = self._consumers(told, place)
        names = {*self._declared, *here, *waiting, *holds.queues, *self._of_broker()}
        states = [
            QueueState(
                name,
                str(place),
                waiting=waiting.get(name, Waiting()),
                consumers=here.get(name, []),
                paused=holds.queues.get(name),
                declared=name in self._declared,
            )
            for name in sorted(name for name in names if name and not is_internal(name))
        ]
        for state in states:
            self._measure(state)
        states += [
            QueueState(name, broker, consumers=workers, paused=holds.queues.get(name), declared=name in self._declared)
            for (name, broker), workers in sorted(elsewhere.items())
        ]
        return states

    def names(self) -> set[str]:
        """Return the name of every queue that anybody knows of."""
        told, _, holds = self._store.fleet.knowledge()
        consumed = {queue for worker in told.values() for queue in worker.get("queues", ())}
        names = {*self._declared, *consumed, *holds.queues, *waiting_by_queue(self._store)}
        names |= self._of_broker()
        return {name for name in names if name and not is_internal(name)}

    def is_in_broker(self, name: str) -> bool:
        """Whether the broker is known to have a queue that nobody else knows."""
        return self._asked(lambda: self._adapter.has_queue(name), False)

    def _of_broker(self) -> set[str]:
        nothing: set[str] = set()
        return self._asked(self._adapter.queues, nothing)

    def _measure(self, state: QueueState) -> None:
        state.depth = self._asked(lambda: self._adapter.depth(state.name), None)
        state.oldest_message = self._asked(lambda: self._adapter.oldest(state.name), None) if state.depth else None

    def _asked(self, ask: Callable[[], T], otherwise: T) -> T:
        """Return what the broker answers; `otherwise` when it does not: one question in vain is enough."""
        if self.trouble:
            return otherwise
        try:
            return ask()
        except _AWAY as error:
            self.trouble = " ".join(str(error).split()) or type(error).__name__
            return otherwise

    @staticmethod
    def _consumers(
        told: Mapping[str, Mapping[str, Any]], place: Place
    ) -> tuple[dict[str, list[str]], dict[tuple[str, str], list[str]]]:
        """Return the consumers of each queue here, and of each queue and broker elsewhere."""
        here: dict[str, list[str]] = {}
        elsewhere: dict[tuple[str, str], list[str]] = {}
        for worker, about in sorted(told.items()):
            other = Place.of(about.get("broker"))
            for queue in about.get("queues", ()) if about.get("role") != "resurrector" else ():
                if place.matches(other):
                    here.setdefault(queue, []).append(worker)
                else:
                    elsewhere.setdefault((queue, str(other)), []).append(worker)
        return here, elsewhere
