"""Relier's own RabbitMQ broker: Dramatiq's queues, with confirms, bound acknowledgements and delays in the store."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pika.exceptions
from dramatiq import Message
from dramatiq.brokers.rabbitmq import DEAD_MESSAGE_TTL
from dramatiq.common import dq_name, q_name, xq_name
from dramatiq.errors import BrokerConnectionError, QueueJoinTimeout
from dramatiq.middleware import Middleware

from relier.brokers.own import OwnBroker
from relier.brokers.place import Place, cluster_of, rabbitmq_place
from relier.brokers.rabbitmq_checks import look_at
from relier.brokers.rabbitmq_connection import LOST, Inquiries, closed, describe, parameters_of
from relier.brokers.rabbitmq_consumer import RabbitmqConsumer
from relier.brokers.rabbitmq_drain import drain_rabbitmq
from relier.brokers.rabbitmq_publisher import NoSuchQueue, Publisher
from relier.brokers.rabbitmq_session import Session, Sessions
from relier.errors import RelierConfigError
from relier.knowledge import newness
from relier.preflight import Finding
from relier.queues import is_internal, is_lane, lane_of
from relier.settings import Settings, get_settings
from relier.urls import safe_url

if TYPE_CHECKING:
    from relier.brokers.generic import Judge

#: A quorum queue drops a message that came back this often. Crashes are counted by the store, so: practically never.
DELIVERY_LIMIT = 1_000_000_000
#: How long (ms) an internal queue outlives the process that declared it.
INTERNAL_EXPIRY = 600_000


@dataclass(frozen=True)
class _Wires:
    """The connections of one process."""

    pid: int
    publisher: Publisher
    sessions: Sessions
    inquiries: Inquiries


class RelierRabbitmqBroker(OwnBroker):
    """A Dramatiq broker on RabbitMQ with Relier installed.

    Every publish is confirmed, every acknowledgement is bound to the channel that delivered the message, delays live in
    the store's due index, and so do dead letters. Queues are those of Dramatiq's own broker.

    Parameters:
      url: `amqp://` or `amqps://`; several are separated by `;`. Defaults to `RELIER_BROKER_URL`.
      settings: Defaults to those of the environment.
      middleware: Dramatiq middlewares in place of its default ones; Relier's are added.

    Raises `RelierConfigError` for a URL that pika cannot use.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        settings: Settings | None = None,
        middleware: list[Middleware] | None = None,
    ) -> None:
        self.settings = settings or get_settings()
        self.url = url or self.settings.broker_url or "amqp://localhost"
        parameters_of(self.url, self.settings, "check")
        super().__init__(middleware=middleware)
        self.broker_id = str(uuid4())
        #: Whether consumers take nothing: see `withdraw`.
        self.idle = False
        self._wires: _Wires | None = None
        self._wiring = threading.Lock()
        #: Queues that are known to exist on the server.
        self._existing: set[str] = set()
        self._complete()

    # -- connections, made on first use -------------------------------------------------------------------------

    @property
    def shares_redis(self) -> bool:
        return False

    def _wired(self) -> _Wires:
        wires = self._wires
        if wires is None or wires.pid != os.getpid():
            with self._wiring:
                wires = self._wires
                if wires is None or wires.pid != os.getpid():
                    wires = _Wires(
                        os.getpid(),
                        Publisher(parameters_of(self.url, self.settings, "publisher")),
                        Sessions(parameters_of(self.url, self.settings, "consumer")),
                        Inquiries(parameters_of(self.url, self.settings, "inquiry")),
                    )
                    self._wires = wires
        return wires

    def close(self) -> None:
        """Close this process's connections; a later call opens new ones."""
        wires, self._wires = self._wires, None
        if wires is not None and wires.pid == os.getpid():
            wires.sessions.close()
            wires.publisher.close()
            wires.inquiries.close()

    # -- queues -------------------------------------------------------------------------------------------------

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue. It is made on the server when something is first sent to it or taken from it."""
        if queue_name in self.queues:
            return
        self.emit_before("declare_queue", queue_name)
        self.queues[queue_name] = None
        self.emit_after("declare_queue", queue_name)
        if not is_internal(queue_name):
            lane = dq_name(queue_name)
            self.delay_queues.add(lane)
            self.emit_after("declare_delay_queue", lane)

    def on_server(self, queue_name: str) -> str:
        """Return a queue's name on the server: behind the namespace, unless that is the default one."""
        namespace = self.settings.namespace
        return queue_name if namespace == "relier" else f"{namespace}.{queue_name}"

    def ensure_queue(self, queue_name: str) -> None:
        """Make a queue, its delay lane and its dead-letter queue on the server where they are missing.

        Raises Dramatiq's `ConnectionClosed`, and `RelierConfigError` when a queue of another kind has the name.
        """
        name = q_name(queue_name)
        if name not in self._existing:
            try:
                self._wired().inquiries.ask(lambda channel: self.declare_on(channel, name))
            except pika.exceptions.ChannelClosedByBroker as error:
                raise self.refusal(name, error) from None
            self._existing.add(name)

    def exists(self, channel: Any, name: str) -> bool:
        """Whether a queue is on the server. A negative answer ends the channel."""
        try:
            channel.queue_declare(self.on_server(name), passive=True)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code == 404:
                return False
            raise
        return True

    def declare_on(self, channel: Any, name: str) -> None:
        """Make a queue and those that belong to it. Raises pika's `ChannelClosedByBroker` when the server refuses."""
        if is_internal(name):
            channel.queue_declare(self.on_server(name), durable=True, arguments={"x-expires": INTERNAL_EXPIRY})
            return
        dead = xq_name(name)
        arguments: dict[str, Any] = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.on_server(dead)}
        if self.settings.rabbitmq_queue_type == "quorum":
            arguments |= {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT}
        for lane in (name, dq_name(name)):
            channel.queue_declare(self.on_server(lane), durable=True, arguments=arguments)
        channel.queue_declare(self.on_server(dead), durable=True, arguments={"x-message-ttl": DEAD_MESSAGE_TTL})

    def refusal(self, name: str, error: pika.exceptions.ChannelClosedByBroker) -> RelierConfigError:
        """Return what to say when the server refuses a queue."""
        kind = self.settings.rabbitmq_queue_type
        if error.reply_code == 406:
            return RelierConfigError(
                f"RabbitMQ ({safe_url(self.url)}) has a queue {name!r} of another kind than"
                f" RELIER_RABBITMQ_QUEUE_TYPE={kind} makes: {describe(error)}. A queue cannot be changed: set the other"
                " type, or let workers empty it, delete it with its .DQ (rabbitmqctl delete_queue), and start again."
            )
        return RelierConfigError(f"RabbitMQ ({safe_url(self.url)}) refuses the queue {name!r}: {describe(error)}.")

    # -- publishing ---------------------------------------------------------------------------------------------

    def _send(self, message: Message[Any]) -> Message[Any]:
        """Raises Dramatiq's `ConnectionClosed` when RabbitMQ does not confirm."""
        self._announce(message)
        self._out([message], lambda ready: self._append(ready, self._encoded))
        self.emit_after("enqueue", message, None)
        return message

    def enqueue_many(self, messages: Iterable[Message[Any]]) -> list[Message[Any]]:
        """Enqueue messages with their confirmations awaited together; all are encoded before the first is sent."""
        return self._send_many(self._first_hand(messages), self._encoded)

    def publish_many(self, messages: Iterable[Message[Any]]) -> list[Message[Any]]:
        """Publish copies that the store keeps, to their queues' delay lanes: every consumer takes those first."""
        return self._send_many([m.copy(queue_name=lane_of(m.queue_name)) for m in messages], Message.encode)

    def _send_many(self, messages: list[Message[Any]], encode: Callable[[Message[Any]], bytes]) -> list[Message[Any]]:
        for message in messages:
            self._announce(message)
        self._out(messages, lambda ready: self._append(ready, encode))
        for message in messages:
            self.emit_after("enqueue", message, None)
        return messages

    def _append(self, messages: list[Message[Any]], encode: Callable[[Message[Any]], bytes]) -> None:
        self._publish([(message.queue_name, encode(message)) for message in messages])

    def _publish(self, messages: list[tuple[str, bytes]]) -> None:
        for queue in {queue for queue, _ in messages}:
            if queue not in self._existing:
                self.ensure_queue(queue)
        wires = self._wired()
        try:
            wires.publisher.publish([(self.on_server(queue), body) for queue, body in messages])
        except NoSuchQueue as error:  # Somebody deleted it.
            self._existing.clear()
            for queue in {queue for queue, _ in messages}:
                self.ensure_queue(queue)
            try:
                wires.publisher.publish([(message.queue, message.body) for message in error.missing])
            except NoSuchQueue as again:
                raise closed(f"no queue for {again}.") from None

    # -- consuming ----------------------------------------------------------------------------------------------

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> RabbitmqConsumer:
        """Return a consumer of a queue or delay lane. It connects when the first message is asked for."""
        return RabbitmqConsumer(self, queue_name, prefetch, timeout)

    def open_session(self, queue_name: str, prefetch: int) -> Session:
        """Begin to consume a queue on the server. Raises Dramatiq's `ConnectionClosed`, or pika's `ChannelClosed`."""
        self.ensure_queue(queue_name)
        try:
            # Copies of the store go to workers of newer releases first: those of older ones may have to decline them.
            priority = newness(self) if is_lane(queue_name) else 0
            return self._wired().sessions.open(self.on_server(queue_name), prefetch, priority)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code != 404:
                raise
            self._existing.discard(q_name(queue_name))
            raise closed(error) from None

    def renew_broker_id(self) -> None:
        self.broker_id = str(uuid4())
        for session in self._wired().sessions.everyone():
            session.end("this worker was declared dead")

    def withdraw(self) -> None:
        self.idle = True
        for session in self._wired().sessions.everyone():
            session.retire()

    def resume(self) -> None:
        self.idle = False

    # -- what others ask ----------------------------------------------------------------------------------

    def inspect(self) -> Iterable[Finding]:
        return look_at(self)

    def return_unacked(self, broker_id: str, queues: Iterable[str]) -> None:
        """Nothing to do: RabbitMQ returns what a lost connection held."""

    def known_broker_ids(self) -> set[str]:
        return set()

    def lane_depth(self, queue: str) -> int:
        return self._counts(lane_of(queue))[0]

    def depth(self, queue: str) -> int:
        return sum(self._counts(queue, dq_name(queue)))

    def has_queue(self, queue: str) -> bool:
        return bool(self._wired().inquiries.ask(lambda channel: self.exists(channel, queue)))

    def _counts(self, *queues: str) -> list[int]:
        """Return how many messages wait in each queue; unacknowledged ones are not counted by RabbitMQ."""
        inquiries = self._wired().inquiries
        return [int(inquiries.ask(partial(self._count, queue))) for queue in queues]

    def _count(self, queue: str, channel: Any) -> int:
        try:
            return int(channel.queue_declare(self.on_server(queue), passive=True).method.message_count)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code == 404:
                return 0
            raise

    def drain(self, queue: str, judge: Judge) -> int:
        names = [self.on_server(name) for name in (queue, dq_name(queue), xq_name(queue))]
        try:
            return drain_rabbitmq(parameters_of(self.url, self.settings, "purge"), names, judge)
        except LOST as error:
            raise closed(error) from None

    def place(self) -> Place:
        prefix = self.on_server("")
        parameters = parameters_of(self.url, self.settings, "inquiry")
        try:
            return rabbitmq_place(parameters, self._wired().inquiries.ask(cluster_of), prefix)
        except BrokerConnectionError:
            return rabbitmq_place(parameters, "", prefix)

    # -- Dramatiq's own commands --------------------------------------------------------------------------------

    def do_qsize(self, queue_name: str) -> int:
        """Return how many messages of a queue and its delay lane wait."""
        return self.depth(q_name(queue_name))

    def flush(self, queue_name: str) -> None:
        """Drop the messages of a queue, its delay lane and its dead-letter queue. An internal queue is deleted."""
        if is_internal(queue_name):
            self._wired().inquiries.ask(lambda channel: channel.queue_delete(self.on_server(queue_name)))
            self._existing.discard(queue_name)
            return
        self.ensure_queue(queue_name)
        for name in (queue_name, dq_name(queue_name), xq_name(queue_name)):
            self._wired().inquiries.ask(partial(self._purge, name))

    def _purge(self, queue: str, channel: Any) -> None:
        channel.queue_purge(self.on_server(queue))

    def flush_all(self) -> None:
        """Drop the messages of every declared queue."""
        for queue_name in self.queues:
            self.flush(queue_name)

    def join(self, queue_name: str, *, interval: int = 100, timeout: int | None = None) -> None:
        """Wait until no message of a queue waits (for tests); unacknowledged ones do not show.

        `interval` and `timeout` are milliseconds. Raises Dramatiq's `QueueJoinTimeout`.
        """
        end = None if timeout is None else time.monotonic() + timeout / 1000
        while self.do_qsize(queue_name):
            if end is not None and time.monotonic() > end:
                raise QueueJoinTimeout(queue_name)  # type: ignore[no-untyped-call]
            time.sleep(interval / 1000)
