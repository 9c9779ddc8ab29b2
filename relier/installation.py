"""Installs Relier on a Dramatiq broker."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

from dramatiq import Broker, Message
from dramatiq import middleware as stock
from dramatiq.middleware import Middleware
from dramatiq.results import Results

from relier.envelope import is_stamped, stamp_first_hand
from relier.middleware import Callbacks, GroupCallbacks, Heartbeat, Lifecycle, Pipelines, TimeLimit
from relier.process import WorkerProcess
from relier.sending import payload_version
from relier.settings import Settings, get_settings
from relier.store import Store, get_store


class Installation:
    """Relier on one broker: its settings, its store, and the worker process once there is one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.role = "worker"
        self.process: WorkerProcess | None = None

    @cached_property
    def store(self) -> Store:
        return get_store(self.settings)


def install(broker: Broker, settings: Settings | None = None) -> Broker:
    """Put every middleware of Relier in the right order on a broker; a second call changes nothing.

    Its actors, declared before or after, are protected from then on. A broker that is not Relier's own keeps its own
    delays and its own recovery of prefetched messages. Connects to nothing.
    """
    if is_installed(broker):
        return broker
    installation = Installation(settings or get_settings())
    broker.__dict__["relier_installation"] = installation
    _replace_middleware(broker, installation)
    if not hasattr(broker, "publish_many"):
        _stamp_on_enqueue(broker)
    return broker


def is_installed(broker: Broker) -> bool:
    """Whether Relier is on the broker."""
    return "relier_installation" in broker.__dict__


def installation_of(broker: Broker) -> Installation:
    """Return Relier's installation on a broker that has it."""
    return cast("Installation", broker.__dict__["relier_installation"])


#: The order of middlewares; those that are not named here come between Relier's and AgeLimit, as they were.
_FIRST: tuple[type[Middleware], ...] = (Heartbeat, Lifecycle)
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
    broker.middleware[:] = [m for m in broker.middleware if not isinstance(m, gone)]
    for middleware in ours:
        broker.add_middleware(middleware)
    broker.middleware.sort(key=_place)


def _ours(broker: Broker, installation: Installation) -> list[Middleware]:
    by_type = {type(m): m for m in broker.middleware}
    ours: list[Middleware] = [Heartbeat(installation), Lifecycle(installation)]
    ours += [Callbacks(installation), Pipelines(installation)]
    groups = cast("stock.GroupCallbacks | None", by_type.get(stock.GroupCallbacks))
    ours.append(GroupCallbacks(installation, **({"barrier_ttl": groups.barrier_ttl} if groups else {})))
    limit = cast("stock.TimeLimit | None", by_type.get(stock.TimeLimit))
    if limit is not None:
        ours.append(TimeLimit(time_limit=limit.time_limit))
    ours += [m() for m in (stock.CurrentMessage, stock.AsyncIO) if m not in by_type]
    return ours


def _place(middleware: Middleware) -> int:
    if type(middleware).__name__ == "Prometheus":
        return -1
    for i, kind in enumerate((*_FIRST, Middleware, *_LAST)):
        if kind is not Middleware and isinstance(middleware, kind):
            return i
    return len(_FIRST)


def _stamp_on_enqueue(broker: Broker) -> None:
    """Stamp what is enqueued first-hand, on a broker that knows nothing of stamps.

    A hook would be too late: some brokers hand it the caller's own message object, and a retry could not be told from
    the same object enqueued twice.
    """
    enqueue = broker.enqueue

    def stamping(message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        if not is_stamped(message):
            message = stamp_first_hand(message, payload_version(broker, message.actor_name))
        return enqueue(message, delay=delay)

    broker.enqueue = stamping  # type: ignore[method-assign]
