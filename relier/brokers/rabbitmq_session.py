"""What a consumer holds of RabbitMQ: a channel, and the messages that came by it and are settled on it alone."""

from __future__ import annotations

import logging
import threading
from collections import deque
from queue import Empty, SimpleQueue
from typing import Any

import pika
from dramatiq import Message

from relier.brokers.delivery import Delivery
from relier.brokers.rabbitmq_connection import ANSWER_TIMEOUT, Link, Parameters, closed, describe

logger = logging.getLogger(__name__)


class RabbitmqDelivery(Delivery):
    """A copy that came by a session. When that has ended RabbitMQ gives the copy to somebody else."""

    def __init__(self, message: Message[Any], raw: bytes, session: Session, tag: int) -> None:
        super().__init__(message, raw)
        self.session = session
        self.tag = tag

    def may_start(self) -> bool:
        return self.session.may_start(self)


class Session:
    """One channel that consumes one queue, from its opening to its end.

    Acknowledgements belong to the channel that delivered the message: on another one, its number means another message.

    Parameters:
      sessions: whose connection is used.
      queue: its name on the server.
      prefetch: most unsettled messages.
      priority: consumers of a higher one get messages first, as long as they may have more.
    """

    def __init__(self, sessions: Sessions, queue: str, prefetch: int, priority: int = 0) -> None:
        self.queue = queue
        self._sessions = sessions
        self._prefetch = prefetch
        self._priority = priority
        #: Set once messages may come, or it is known that none will.
        self.opened = threading.Event()
        #: Why it ended; None while it is alive.
        self.error: BaseException | str | None = None
        #: What came and was not taken: tag and body. None wakes a consumer that waits.
        self._arrived: SimpleQueue[tuple[int, bytes] | None] = SimpleQueue()
        #: Deliveries that are not settled, by tag.
        self._held: dict[int, RabbitmqDelivery] = {}
        #: Settled deliveries on their way to RabbitMQ: with True they are acknowledged, else they go back.
        self._leaving: deque[tuple[RabbitmqDelivery, bool]] = deque()
        self._nudged = False
        self._retired = False
        self._quiet = threading.Condition()
        self._channel: Any = None
        self._consumer_tag = ""

    # -- from any thread ----------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether its messages are still this process's."""
        return self.error is None

    def take(self, timeout: float) -> tuple[int, bytes] | None:
        """Return the next message as tag and body, or None after `timeout` seconds."""
        try:
            return self._arrived.get(timeout=timeout)
        except Empty:
            return None

    def hold(self, delivery: RabbitmqDelivery) -> None:
        """Note a delivery that a worker thread gets; of a retired session it goes back."""
        with self._quiet:
            if self._retired:
                delivery.started = False
                self._leaving.append((delivery, False))
            else:
                self._held[delivery.tag] = delivery
        if delivery.started is False:
            self._nudge()

    def may_start(self, delivery: RabbitmqDelivery) -> bool:
        with self._quiet:
            delivery.started = self.is_open and delivery.tag in self._held
        return delivery.started

    def settle(self, delivery: RabbitmqDelivery, remove: bool) -> None:
        """Acknowledge a message, or give it back. Of one that is not ours any more nothing is said."""
        with self._quiet:
            ours = self._held.pop(delivery.tag, None) is not None and self.is_open
            if ours:
                self._leaving.append((delivery, remove))
        if ours:
            self._nudge()
        else:
            delivery.removed(False)

    def retire(self, give_back: bool = True, but_begun: bool = False) -> None:
        """Take no more messages; what was taken is settled when it is done.

        `give_back`: what was taken and not started goes back now. `but_begun`: not what may have been claimed already.
        """
        with self._quiet:
            again, self._retired = self._retired, True
            for tag, delivery in list(self._held.items()):
                if but_begun and delivery.started:
                    continue
                if give_back and not hasattr(delivery, "relier_run") and delivery.pledge is None:
                    delivery.started = False
                    del self._held[tag]
                    self._leaving.append((delivery, False))
            anything = bool(self._leaving)
        if not again:
            self._sessions.call(self._cancel)
        elif anything:
            self._nudge()

    def is_crowded(self) -> bool:
        """Whether half of what RabbitMQ lets us hold only waits until the store's custody is durable."""
        with self._quiet:
            return 2 * sum(delivery.waits_for_store for delivery in self._held.values()) >= self._prefetch

    def end(self, why: str) -> None:
        """End at once: RabbitMQ gives everything that is not settled to others."""
        if self._end(why):
            self._sessions.call(self._close_channel)

    def wait_settled(self, timeout: float) -> None:
        """Wait until what was settled, or only waits for durability, is on its way to RabbitMQ."""
        with self._quiet:
            self._quiet.wait_for(
                lambda: not self.is_open or not (self._leaving or any(d.waits_for_store for d in self._held.values())),
                timeout,
            )

    def _nudge(self) -> None:
        if not self._nudged:
            self._nudged = True
            self._sessions.call(self._flush)

    def _end(self, why: BaseException | str) -> bool:
        with self._quiet:
            if self.error is not None:
                return False
            self.error = why
            lost = [delivery for delivery, _ in self._leaving]
            self._leaving.clear()
            self._quiet.notify_all()
        self.opened.set()
        self._arrived.put(None)
        for delivery in lost:
            delivery.removed(False)
        return True

    # -- on the link's thread -----------------------------------------------------------------------------------

    def start(self, connection: Any) -> None:
        """Open the channel on a connection."""
        if self.is_open and self._channel is None:
            self._channel = connection.channel(on_open_callback=self._channel_opened)
            self._channel.add_on_close_callback(lambda _, error: self.lost(error))

    def lost(self, error: BaseException) -> None:
        """End because the channel or the connection did."""
        self._channel = None
        self._sessions.forget(self)
        if self._end(error) and self.opened.is_set() and not self._retired:
            logger.warning("A consumer lost its channel.", extra={"queue": self.queue, "error": describe(error)})

    def _channel_opened(self, channel: Any) -> None:
        if not self.is_open or self._retired:  # Nobody waits for it any more.
            channel.close()
            return
        channel.add_on_cancel_callback(lambda _: self.end("the queue was deleted"))
        channel.basic_qos(prefetch_count=self._prefetch)
        arguments = {"x-priority": self._priority} if self._priority else None
        self._consumer_tag = channel.basic_consume(
            self.queue, self._message, callback=lambda _: self.opened.set(), arguments=arguments
        )

    def _message(self, channel: Any, method: Any, _: Any, body: bytes) -> None:
        if not self._retired:
            self._arrived.put((method.delivery_tag, body))
        elif channel.is_open:
            channel.basic_nack(method.delivery_tag, requeue=True)

    def _flush(self) -> None:
        self._nudged = False
        while self._leaving and self._channel is not None and self._channel.is_open:
            delivery, remove = self._leaving.popleft()
            if remove:
                self._channel.basic_ack(delivery.tag)
            else:
                self._channel.basic_nack(delivery.tag, requeue=True)
            delivery.removed(False)
        with self._quiet:
            self._quiet.notify_all()
        if self._retired and not self._held:
            self._close_channel()

    def _cancel(self) -> None:
        """Stop consuming; what arrived and was not taken goes back."""
        channel = self._channel
        if channel is None or not channel.is_open:
            self._end("retired")
            return
        if self._consumer_tag:
            channel.basic_cancel(self._consumer_tag)
            self._consumer_tag = ""
        while (arrived := self.take(0)) is not None:
            channel.basic_nack(arrived[0], requeue=True)
        self._arrived.put(None)
        self._flush()

    def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        self._sessions.forget(self)
        self._end("closed")
        if channel is not None and channel.is_open:
            channel.close()


class Sessions:
    """All sessions of a process, on one connection.

    Parameters:
      parameters: how to reach each server.
    """

    def __init__(self, parameters: list[Parameters]) -> None:
        self._link = Link(parameters, self._up, self._down)
        self._all: set[Session] = set()
        self._lock = threading.Lock()

    def call(self, function: Any) -> None:
        """Have the connection's thread call a function."""
        self._link.call(function)

    def open(self, queue: str, prefetch: int, priority: int = 0) -> Session:
        """Consume a queue. Raises Dramatiq's `ConnectionClosed`, or pika's `ChannelClosed` when the server refuses."""
        session = Session(self, queue, prefetch, priority)
        with self._lock:
            self._all.add(session)
        self._link.call(self._start)
        if not session.opened.wait(ANSWER_TIMEOUT):
            session.end("no answer in time")
        if session.error is not None:
            if isinstance(session.error, pika.exceptions.ChannelClosedByBroker):
                raise session.error
            raise closed(session.error)
        return session

    def forget(self, session: Session) -> None:
        with self._lock:
            self._all.discard(session)

    def everyone(self) -> list[Session]:
        """Return the sessions that have not ended."""
        with self._lock:
            return list(self._all)

    def close(self) -> None:
        """End all sessions and the connection; a later `open` begins anew."""
        for session in self.everyone():
            session._end("closed")
        self._link.close()

    def _start(self) -> None:
        if self._link.connection is None:
            self._link.demand()
            return
        for session in self.everyone():
            session.start(self._link.connection)

    def _up(self, _: Any) -> None:
        self._start()

    def _down(self, error: BaseException) -> None:
        for session in self.everyone():
            session.lost(error)
