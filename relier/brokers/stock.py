"""Dramatiq's own brokers with Relier installed: their delays and what was only fetched stay Dramatiq's affair."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import redis
from dramatiq import Message
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.common import dq_name, xq_name
from dramatiq.errors import ConnectionClosed

from relier.brokers.generic import BACKLOG, CUT_OFF, LATE_COPIES, SPREAD, Adapter, Judge, Weakness
from relier.brokers.guard import REST, GuardedConsumer
from relier.brokers.peek import redis_messages, redis_oldest, redis_queues
from relier.brokers.place import Place, address, cluster_of, mark_redis, rabbitmq_place, redis_place
from relier.brokers.redis_drain import drain_redis

if TYPE_CHECKING:
    from relier.installation import Installation

logger = logging.getLogger(__name__)

#: How often (s) a worker whose queue is paused tells Redis that it lives; it is taken for dead after 60 s by default.
TELL_EVERY = 5.0


# -- Redis ----------------------------------------------------------------------------------------------------------


class RedisAdapter(Adapter):
    """Dramatiq's `RedisBroker`."""

    returns = True

    def __init__(self, broker: Any) -> None:
        super().__init__(broker)
        #: What the consumer of each queue holds until its time has come, by Redis's id for it.
        self._delayed: dict[str, dict[str, MessageProxy]] = defaultdict(dict)

    def guarded(self, consumer: Consumer, queue_name: str, installation: Installation) -> Consumer:
        """Also return to the queue the delayed messages that Dramatiq dropped with the consumer before this one.

        It does so after a connection error, and Redis counts them as this worker's as long as that lives.
        """
        delayed = self._delayed[queue_name]
        consumer.requeue(list(delayed.values()))
        delayed.clear()
        return _RedisConsumer(consumer, queue_name, self, installation, delayed)

    def begin_work(self) -> None:
        mark_redis(self.broker.client, self.broker.namespace)

    def put_back(self, consumer: Consumer, message: Any) -> None:
        consumer.requeue([message])
        if hasattr(consumer, "queued_message_ids"):
            consumer.queued_message_ids.discard(message.message_id)

    def depth(self, queue: str) -> int | None:
        try:
            lists = (f"{self.broker.namespace}:{name}" for name in (queue, dq_name(queue)))
            return sum(int(self.broker.client.llen(name)) for name in lists)
        except redis.RedisError:
            return None

    def held(self, queue: str) -> int | None:
        names = [f"{self.broker.namespace}:{name}" for name in (queue, dq_name(queue))]
        client = self.broker.client
        try:
            return max(0, sum(int(client.hlen(f"{name}.msgs")) - int(client.llen(name)) for name in names))
        except redis.RedisError:
            return None

    def oldest(self, queue: str) -> float | None:
        return redis_oldest(self.broker.client, self.broker.namespace, (queue, dq_name(queue)))

    def queues(self) -> set[str]:
        return redis_queues(self.broker.client, self.broker.namespace)

    def waiting(self) -> Iterator[bytes]:
        return redis_messages(self.broker.client, self.broker.namespace)

    def drain(self, queue: str, judge: Judge) -> int:
        return drain_redis(self.broker.client, self.broker.namespace, queue, judge)

    def shares_redis(self, client: redis.Redis) -> bool:
        return isinstance(self.broker.client, redis.Redis) and address(self.broker.client) == address(client)

    def place(self) -> Place:
        return redis_place(self.broker.client, self.broker.namespace)

    def weaknesses(self) -> list[Weakness]:
        redis_only = [REDIS_FETCHED, REDIS_CUTS, REDIS_DELAYS, REDIS_UNDECODABLE, REDIS_FULL, REDIS_CLOCKS]
        return [*redis_only, CUT_OFF, LATE_COPIES, SPREAD, BACKLOG]


class _RedisConsumer(GuardedConsumer):
    """Knows which delayed messages it holds.

    Parameters:
      inner, queue_name, adapter, installation: see `GuardedConsumer`.
      delayed: where it notes them, by Redis's id.
    """

    def __init__(
        self,
        inner: Consumer,
        queue_name: str,
        adapter: Adapter,
        installation: Installation,
        delayed: dict[str, MessageProxy],
    ) -> None:
        super().__init__(inner, queue_name, adapter, installation)
        self.delayed = delayed
        #: When (monotonic) Redis was last told, in place of a fetch, that this worker lives.
        self._told = 0.0

    def rest_closed(self) -> None:
        """Also tell Redis that this worker lives, as its fetches do: else others take what it holds."""
        if time.monotonic() - self._told >= TELL_EVERY:
            self._told = time.monotonic()
            self.adapter.broker.do_qsize(self.queue_name)
        super().rest_closed()

    def __next__(self) -> MessageProxy | None:
        message = super().__next__()
        if message is not None and "eta" in message.options:
            self.delayed[message.options["redis_message_id"]] = message
        return message

    def ack(self, message: MessageProxy) -> None:
        super().ack(message)
        self.delayed.pop(message.options["redis_message_id"], None)


REDIS_FETCHED = Weakness(
    "fetched",
    "What a dead worker had fetched but not begun comes back by RedisBroker's maintenance: after its heartbeat_timeout"
    " (60 s), and then by chance; minutes, often more with few workers.",
    "Use Relier's own Redis broker, or RedisBroker(heartbeat_timeout=…, maintenance_chance=1_000_000).",
)
REDIS_DELAYS = Weakness(
    "delays",
    "Delayed tasks are held in worker memory. With more than 1000 a thread, what is put back may wait for"
    " RELIER_RESURRECTION_CLAIM_GRACE_PERIOD. Retries are in the store.",
    "Use Relier's own Redis broker.",
)
REDIS_CUTS = Weakness(
    "cuts",
    "A message whose delivery was lost with the connection stays with the worker that asked for it until that ends.",
    "Use Relier's own Redis broker.",
)
REDIS_UNDECODABLE = Weakness(
    "undecodable",
    "Bytes that cannot be decoded become a dead letter, but Redis keeps its copy and delivers it again whenever the"
    " worker that fetched it has ended.",
    "Use Relier's own Redis broker.",
)
REDIS_FULL = Weakness(
    "out of memory",
    "When the broker's Redis is out of memory, RedisBroker can neither fetch nor acknowledge, so nothing drains.",
    "Use Relier's own Redis broker.",
)
REDIS_CLOCKS = Weakness(
    "clocks",
    "Maintenance compares the clocks of workers: one that is ahead by heartbeat_timeout hands messages of living"
    " workers to others. Each still runs once, but its copies cost claims.",
    "Synchronise the clocks (NTP), or use Relier's own Redis broker.",
)


# -- RabbitMQ -------------------------------------------------------------------------------------------------------


class RabbitmqAdapter(Adapter):
    """Dramatiq's `RabbitmqBroker`."""

    returns = True

    def begin_work(self) -> None:
        """Confirm what this process enqueues: delays that are over, follow-ups, copies of the store.

        Dramatiq acknowledges the original right after it, which must not be the only trace.
        """
        self.broker.confirm_delivery = True

    def guarded(self, consumer: Consumer, queue_name: str, installation: Installation) -> Consumer:
        return _BoundConsumer(consumer, queue_name, self, installation)

    def put_back(self, consumer: Any, message: Any) -> None:
        consumer.known_tags.discard(message._tag)
        nack = partial(consumer.channel.basic_nack, message._tag, requeue=True)
        consumer.connection.add_callback_threadsafe(nack)

    def _publish(self, message: Message[Any]) -> None:
        with self._without_consuming(message.queue_name):
            super()._publish(message)

    @contextmanager
    def _without_consuming(self, queue: str) -> Iterator[None]:
        """Keep RabbitmqBroker from declaring the queue: a worker that lacks its actors would begin to consume it."""
        known = queue in self.broker.queues
        self.broker.queues.add(queue)
        try:
            yield
        finally:
            if not known:
                self.broker.queues.discard(queue)

    def _has_lane(self, lane: str) -> bool:
        return True

    def depth(self, queue: str) -> int | None:
        names = (queue, dq_name(queue))
        found: int | None = self._on_own_channel(lambda channel: sum(_waiting(channel, name) for name in names))
        return found

    def drain(self, queue: str, judge: Judge) -> int:
        from relier.brokers.rabbitmq_connection import LOST
        from relier.brokers.rabbitmq_drain import drain_rabbitmq

        told = self.broker.parameters
        parameters = list(told) if isinstance(told, list | tuple) else [told]
        try:
            return drain_rabbitmq(parameters, (queue, dq_name(queue), xq_name(queue)), judge)
        except LOST as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]

    def drop_queue(self, queue: str) -> None:
        def drop(channel: Any) -> None:
            for name in (queue, dq_name(queue), xq_name(queue)):
                channel.queue_delete(name)

        self._on_own_channel(drop)

    def place(self) -> Place:
        return rabbitmq_place(self.broker.parameters, self._on_own_channel(cluster_of) or "")

    def _on_own_channel(self, look: Any) -> Any:
        """Return what `look` finds on a connection of its own, whose end hurts nobody; None when RabbitMQ refuses."""
        from pika import BlockingConnection
        from pika.exceptions import AMQPError

        try:
            connection = BlockingConnection(parameters=self.broker.parameters)
        except (AMQPError, OSError):
            return None
        try:
            return look(connection.channel())
        except (AMQPError, OSError):
            return None
        finally:
            if connection.is_open:
                connection.close()

    def weaknesses(self) -> list[Weakness]:
        found = [RABBITMQ_FETCHED, CUT_OFF, RABBITMQ_DELAYS, RABBITMQ_UNDECODABLE, LATE_COPIES, BACKLOG]
        return found if self.broker.confirm_delivery else [RABBITMQ_ACCEPTED, *found]


def _waiting(channel: Any, name: str) -> int:
    return int(channel.queue_declare(name, passive=True).method.message_count)


class _BoundConsumer(GuardedConsumer):
    """Acknowledges only what it delivered itself.

    After a reconnect Dramatiq acknowledges messages of the old channel on the new one, where their tags may be those of
    others. RabbitMQ delivers them again in any case.
    """

    def __next__(self) -> MessageProxy | None:
        message = super().__next__()
        if message is not None:
            message.__dict__["delivered_by"] = self
            message.__dict__["may_start"] = partial(self._holds, message)
        return message

    def rest(self) -> None:
        """Return what arrived, and let acknowledgements through: they need this thread."""
        inner: Any = self.inner
        try:
            inner.channel.cancel()
            inner.connection.process_data_events(time_limit=REST)
        except Exception as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]

    def rest_closed(self) -> None:
        inner: Any = self.inner
        try:
            inner.connection.process_data_events(time_limit=REST)
        except Exception as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]

    def ack(self, message: MessageProxy) -> None:
        if self._holds(message):
            super().ack(message)

    def _holds(self, message: MessageProxy) -> bool:
        return message.__dict__.get("delivered_by") is self and bool(self.inner.connection.is_open)


RABBITMQ_ACCEPTED = Weakness(
    "accepted",
    "Publisher confirms are off: a push that returned may not have reached RabbitMQ.",
    "RabbitmqBroker(confirm_delivery=True).",
)
RABBITMQ_FETCHED = Weakness(
    "fetched",
    "What a worker had fetched that hangs, or whose host vanished, comes back when RabbitMQ misses its AMQP heartbeats:"
    " about a minute later by default. A killed worker's comes back at once.",
    "Put ?heartbeat=3 into the URL, or use Relier's own RabbitMQ broker.",
)
RABBITMQ_DELAYS = Weakness(
    "delays",
    "Delayed tasks are held in worker memory, unacknowledged. With more than 1000 a thread, what is put back may wait"
    " for RELIER_RESURRECTION_CLAIM_GRACE_PERIOD; after consumer_timeout (30 min) they are delivered again. Retries are"
    " in the store.",
    "Use Relier's own RabbitMQ broker.",
)
RABBITMQ_UNDECODABLE = Weakness(
    "undecodable",
    "Bytes that cannot be decoded go to the queue's dead-letter queue in RabbitMQ (<queue>.XQ), which drops them after"
    " 7 days; rl dlq does not have them.",
    "Use Relier's own RabbitMQ broker.",
)
