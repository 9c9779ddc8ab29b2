"""Which adapter a broker has: the one place that looks at what a broker is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import redis
from dramatiq import Broker, Message
from dramatiq.broker import Consumer

from relier.brokers.generic import Adapter, Judge, Weakness
from relier.brokers.own import OwnBroker
from relier.brokers.peek import Head
from relier.brokers.place import Place
from relier.brokers.stock import RabbitmqAdapter, RedisAdapter
from relier.brokers.stub import StubAdapter
from relier.preflight import Finding

if TYPE_CHECKING:
    from relier.installation import Installation


def adapter_of(broker: Broker) -> Adapter:
    """Return the adapter of a broker, always the same one."""
    adapter: Adapter | None = broker.__dict__.get("relier_adapter")
    if adapter is None:
        adapter = broker.__dict__["relier_adapter"] = _kind_of(broker)(broker)
    return adapter


def _kind_of(broker: Broker) -> type[Adapter]:
    if isinstance(broker, OwnBroker):
        return OwnAdapter
    for module, name, kind in _STOCK:
        # A module that was not imported has made no broker; RabbitMQ's needs a library that may not be there.
        found = sys.modules.get(module)
        if found is not None and isinstance(broker, getattr(found, name)):
            return kind
    return Adapter


_STOCK: tuple[tuple[str, str, type[Adapter]], ...] = (
    ("dramatiq.brokers.redis", "RedisBroker", RedisAdapter),
    ("dramatiq.brokers.rabbitmq", "RabbitmqBroker", RabbitmqAdapter),
    ("dramatiq.brokers.stub", "StubBroker", StubAdapter),
)


class OwnAdapter(Adapter):
    """A broker of Relier's own, which does all this by itself."""

    delays_in_store = True
    returns = True

    def protect(self, installation: Installation) -> None:
        """Nothing to do: it stamps, and its consumer keeps."""

    def begin_work(self) -> None:
        self.broker.mark_place()

    def enqueue_many(self, messages: Sequence[Message[Any]]) -> list[Message[Any]]:
        if any("delay" in message.options for message in messages):
            return super().enqueue_many(messages)
        return list(self.broker.enqueue_many(messages))

    def publish(self, messages: Iterable[Message[Any]]) -> None:
        self.broker.publish_many(list(messages))

    def put_back(self, consumer: Consumer, message: Any) -> None:
        raise AssertionError("a consumer of our own gives its messages back by itself")

    def return_unacked(self, told: dict[str, Any]) -> None:
        if told.get("broker_id"):
            self.broker.return_unacked(told["broker_id"], told.get("queues", ()))

    def known_broker_ids(self) -> set[str]:
        return set(self.broker.known_broker_ids())

    @property
    def broker_id(self) -> str | None:
        return str(self.broker.broker_id)

    def renew_broker_id(self) -> None:
        self.broker.renew_broker_id()

    def withdraw(self) -> bool:
        self.broker.withdraw()
        return True

    def stop_taking(self) -> bool:
        return self.withdraw()

    def resume(self) -> None:
        self.broker.resume()

    def close_queues(self, queues: frozenset[str]) -> None:
        super().close_queues(queues)
        self.broker.closed = queues

    def works_from(self, unstarted: Callable[[str], list[Any]]) -> None:
        self.broker.unstarted = unstarted

    def depth(self, queue: str) -> int | None:
        return int(self.broker.depth(queue))

    def held(self, queue: str) -> int | None:
        found: int | None = self.broker.held(queue)
        return found

    def oldest(self, queue: str) -> float | None:
        found: float | None = self.broker.oldest(queue)
        return found

    def heads(self, queues: Sequence[str]) -> dict[str, Head]:
        found: dict[str, Head] = self.broker.heads(queues)
        return found

    def queues(self) -> set[str]:
        return set(self.broker.queues_with_messages())

    def has_queue(self, queue: str) -> bool:
        return bool(self.broker.has_queue(queue))

    def lane_depth(self, queue: str) -> int | None:
        return int(self.broker.lane_depth(queue))

    def waiting(self) -> Iterable[bytes] | None:
        found: Iterable[bytes] | None = self.broker.waiting()
        return found

    def drain(self, queue: str, judge: Judge) -> int | None:
        removed: int | None = self.broker.drain(queue, judge)
        return removed

    def shares_redis(self, client: redis.Redis) -> bool:
        return bool(self.broker.shares_redis)

    def place(self) -> Place:
        found: Place = self.broker.place()
        return found

    def inspect(self) -> Iterable[Finding]:
        found: Iterable[Finding] = self.broker.inspect()
        return found

    def weaknesses(self) -> list[Weakness]:
        return []
