"""An application's actors on the broker of a test, and back where they were."""

from __future__ import annotations

from typing import Any, ClassVar

import dramatiq.broker
from dramatiq import Broker
from dramatiq import middleware as stock
from dramatiq.actor import Actor
from dramatiq.middleware import Middleware
from dramatiq.results import Results

from relier.installation import installation_of, is_installed
from relier.queues import is_internal
from relier.settings import Settings, get_settings
from relier.testing.errors import TestingError


class Rehearsal:
    """Moves the actors of a broker to another one for a while.

    Parameters:
      broker: Default: the global one, if there is one.
    """

    #: The one that goes on.
    _current: ClassVar[Rehearsal | None] = None
    #: Actors of modules that were first imported during a rehearsal, when there was no other broker.
    _homeless: ClassVar[dict[str, Actor[..., Any]]] = {}

    def __init__(self, broker: Broker | None = None) -> None:
        self._home = broker or dramatiq.broker.global_broker
        self._global: Broker | None = None
        self._moved: list[tuple[Actor[..., Any], Broker, Any]] = []
        self._stage: Broker | None = None

    @staticmethod
    def check() -> None:
        """Raise when another one goes on."""
        if Rehearsal._current is not None:
            raise TestingError("One Testing block is inside of another: actors can be on one broker only.")

    @property
    def settings(self) -> Settings:
        """Those of the application's broker."""
        home = self._home
        return installation_of(home).settings if home is not None and is_installed(home) else get_settings()

    def middleware(self) -> list[Middleware]:
        """Return what the application has put on its broker, but for what reaches another server or port."""
        present = self._home.middleware if self._home is not None else []
        kept = [m for m in present if not _is_ours(m) and not isinstance(m, _LEFT_OUT) and not _is_exporter(m)]
        limit = next((m.time_limit for m in present if isinstance(m, stock.TimeLimit)), 600_000)
        missing = [kind() for kind in _USUAL if not any(isinstance(m, kind) for m in kept)]
        return [*missing, stock.TimeLimit(time_limit=limit), *kept]

    def begin(self, stage: Broker) -> None:
        """Move the actors to a broker, which is the global one meanwhile."""
        Rehearsal._current = self
        self._global, self._stage = dramatiq.broker.global_broker, stage
        dramatiq.broker.global_broker = stage
        home = dict(self._home.actors) if self._home is not None else {}
        for actor in {**Rehearsal._homeless, **home}.values():
            if not is_internal(actor.queue_name):
                self._moved.append((actor, actor.broker, actor.fn))
                actor.broker = stage
                stage.declare_actor(actor)

    def end(self) -> None:
        """Put every actor back. Those of a module that was imported meanwhile move in with them."""
        assert self._stage is not None
        moved = {actor.actor_name for actor, _, _ in self._moved}
        for actor, broker, fn in self._moved:
            actor.broker, actor.fn = broker, fn
        for name, actor in self._stage.actors.items():
            if name not in moved and not is_internal(actor.queue_name) and _is_of_a_module(actor):
                self._settle(actor)
        self._moved.clear()
        dramatiq.broker.global_broker = self._global
        Rehearsal._current = None

    def _settle(self, actor: Actor[..., Any]) -> None:
        if self._home is None:
            Rehearsal._homeless[actor.actor_name] = actor
        else:
            actor.broker = self._home
            self._home.declare_actor(actor)


#: Of these the test's broker has its own.
_LEFT_OUT = (Results, stock.TimeLimit, stock.Retries, stock.AsyncIO)
#: What every broker has.
_USUAL = (stock.AgeLimit, stock.ShutdownNotifications, stock.Callbacks, stock.Pipelines, stock.CurrentMessage)


def _is_ours(middleware: Middleware) -> bool:
    return type(middleware).__module__.partition(".")[0] == "relier"


def _is_exporter(middleware: Middleware) -> bool:
    return type(middleware).__name__ == "Prometheus"


def _is_of_a_module(actor: Actor[..., Any]) -> bool:
    """Whether it can be imported again, and not a function within a test."""
    fn = getattr(actor.fn, "__wrapped__", actor.fn)
    return "<locals>" not in getattr(fn, "__qualname__", type(fn).__qualname__)
