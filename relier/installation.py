"""Installs Relier on a Dramatiq broker."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, cast

import dramatiq.broker
from dramatiq import Broker
from dramatiq import middleware as stock
from dramatiq.middleware import Middleware
from dramatiq.results import Results

from relier.brokers.adapters import adapter_of
from relier.drain import Drain
from relier.integrity import Integrity
from relier.middleware import (
    Admission,
    AsyncIO,
    Callbacks,
    GroupCallbacks,
    Heartbeat,
    Idempotency,
    JobKeys,
    Lifecycle,
    Pipelines,
    RecoveryPool,
    TimeLimit,
)
from relier.process import WorkerProcess
from relier.settings import Settings, get_settings
from relier.store import Store, get_store

if TYPE_CHECKING:
    from relier.tracing import Tracing


class Installation:
    """Relier on one broker: its settings, its store, and the worker process once there is one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.role = "worker"
        self.process: WorkerProcess | None = None
        #: Makes spans; None without traces.
        self.tracing: Tracing | None = None
        #: How that process goes out of service.
        self.drain: Drain | None = None

    @cached_property
    def store(self) -> Store:
        return get_store(self.settings)

    @cached_property
    def integrity(self) -> Integrity:
        return Integrity.of(self.settings)


def install(broker: Broker, settings: Settings | None = None) -> Broker:
    """Put every middleware of Relier in the right order on a broker; a second call changes nothing.

    Its actors, declared before or after, are protected from then on. A broker that is not Relier's own keeps its own
    delays and its own recovery of prefetched messages. Connects to nothing.
    """
    if is_installed(broker):
        return broker
    adapter = adapter_of(broker)
    installation = Installation(adapter.settings(settings or get_settings()))
    broker.__dict__["relier_installation"] = installation
    _replace_middleware(broker, installation)
    adapter.protect(installation)
    if installation.settings.otel_enabled:
        from relier.tracing import Tracing  # Else OpenTelemetry is not imported.

        installation.tracing = Tracing(broker)
    return broker


def is_installed(broker: Broker) -> bool:
    """Whether Relier is on the broker."""
    return "relier_installation" in broker.__dict__


def installation_of(broker: Broker) -> Installation:
    """Return Relier's installation on a broker that has it."""
    return cast("Installation", broker.__dict__["relier_installation"])


def store_of(broker: Broker | None = None) -> Store:
    """Return the store of a broker, by default the global one; that of the settings when Relier is not on it."""
    broker = broker or dramatiq.broker.global_broker
    return installation_of(broker).store if broker is not None and is_installed(broker) else get_store()


#: The order of middlewares; those that are not named here come between Relier's and AgeLimit, as they were.
_FIRST: tuple[type[Middleware], ...] = (RecoveryPool, Heartbeat, Idempotency, JobKeys, Lifecycle, Admission)
_LAST: tuple[type[Middleware], ...] = (
    stock.AgeLimit,
    stock.TimeLimit,
    stock.ShutdownNotifications,
    stock.Callbacks,
    stock.Pipelines,
    stock.GroupCallbacks,
    Results,
    stock.CurrentMessage,
    stock.AsyncIO,
)


def _replace_middleware(broker: Broker, installation: Installation) -> None:
    ours = _ours(broker, installation)
    gone = (stock.Retries, stock.Callbacks, stock.Pipelines, stock.GroupCallbacks, stock.TimeLimit)
    broker.middleware[:] = [m for m in broker.middleware if not isinstance(m, gone) and type(m) is not stock.AsyncIO]
    for middleware in ours:
        broker.add_middleware(middleware)
    broker.middleware.sort(key=_place)


def _ours(broker: Broker, installation: Installation) -> list[Middleware]:
    by_type = {type(m): m for m in broker.middleware}
    ours: list[Middleware] = [
        RecoveryPool(),
        Heartbeat(installation),
        Idempotency(),
        JobKeys(),
        Lifecycle(installation),
    ]
    ours.append(Admission(broker, installation))
    ours += [Callbacks(installation), Pipelines(installation)]
    groups = cast("stock.GroupCallbacks | None", by_type.get(stock.GroupCallbacks))
    ours.append(GroupCallbacks(installation, **({"barrier_ttl": groups.barrier_ttl} if groups else {})))
    limit = cast("stock.TimeLimit | None", by_type.get(stock.TimeLimit))
    if limit is not None:
        ours.append(TimeLimit(time_limit=limit.time_limit))
    if stock.CurrentMessage not in by_type:
        ours.append(stock.CurrentMessage())
    if not any(isinstance(m, stock.AsyncIO) and type(m) is not stock.AsyncIO for m in broker.middleware):
        ours.append(AsyncIO())  # Somebody else's own is kept.
    return ours


def _place(middleware: Middleware) -> int:
    if type(middleware).__name__ == "Prometheus":
        return -1
    for i, kind in enumerate((*_FIRST, Middleware, *_LAST)):
        if kind is not Middleware and isinstance(middleware, kind):
            return i
    return len(_FIRST)
