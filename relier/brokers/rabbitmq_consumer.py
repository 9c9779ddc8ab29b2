"""The consumer of Relier's RabbitMQ broker."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pika.exceptions
from dramatiq import Message
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed, DecodeError

from relier.brokers.rabbitmq_connection import describe
from relier.brokers.rabbitmq_session import RabbitmqDelivery, Session
from relier.errors import RelierConfigError
from relier.queues import is_internal, is_lane
from relier.store.connection import UNAVAILABLE

if TYPE_CHECKING:
    from relier.brokers.rabbitmq import RelierRabbitmqBroker

logger = logging.getLogger(__name__)

#: Longest wait (s) for a message, after which the consumer thread looks around.
LONGEST_WAIT = 0.25
#: Pause (s) before another try while the broker or the store is away.
PAUSE = 0.25
#: Pause (s) after the first failure to open a session; it doubles up to PAUSE. Most lost connections are back at once.
FIRST_PAUSE = 0.02
#: Pause (s) before another try when RabbitMQ refuses to let this process consume.
REFUSED_PAUSE = 1.0
#: Most sessions that are left behind at once: with a prefetch of 16, room for some 500 failures in a second.
MOST_BEHIND = 32
#: For so long (s) after a copy of the store that its code cannot run, a worker takes no further ones than its prefetch
#: allows before those are settled: workers that can run them shall come first.
MODESTY = 1.0
#: Longest wait (s) at the end until acknowledgements have left: those that wait for durability included.
FAREWELL = 2.5


class RabbitmqConsumer(Consumer):
    """Takes messages of one queue, session after session: a lost connection ends a session, not the consumer.

    Parameters:
      broker: RelierRabbitmqBroker.
      queue_name: the queue or delay lane.
      prefetch: most unsettled messages.
      timeout: longest wait in milliseconds before the consumer thread looks around.
    """

    def __init__(self, broker: RelierRabbitmqBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self.broker = broker
        self.queue_name = queue_name
        self.prefetch = prefetch
        self.timeout = min(timeout / 1000, LONGEST_WAIT)
        self._session: Session | None = None
        #: Earlier sessions, on which acknowledgements wait for durability.
        self._behind: list[Session] = []
        #: A delivery that the store is to take, and why it cannot be decoded.
        self._stuck: tuple[RabbitmqDelivery, Exception | None] | None = None
        self._pause = FIRST_PAUSE
        #: When a copy of the store was declined last.
        self._declined_at = -MODESTY

    # -- the consumer thread ------------------------------------------------------------------------------------

    def __next__(self) -> MessageProxy | None:
        if self._stuck is not None:
            return self._offer(*self._stuck)
        if self.broker.idle:
            self._retire()
            time.sleep(PAUSE)
            return None
        if self.broker.is_closed(self.queue_name):
            self._retire(but_begun=True)
            time.sleep(PAUSE)
            return None
        session = self._session
        if session is not None and session.is_open and session.is_crowded() and not self._is_modest():
            session = self._leave_behind(session)
        if session is None or not session.is_open:
            session = self._session = self._open()
        arrived = session.take(self.timeout) if session is not None else None
        if session is None or arrived is None:
            return None
        return self._offer(*self._decode(session, *arrived))

    def _is_modest(self) -> bool:
        """Whether this worker is too old for copies of the store: then it takes no more of them than its share."""
        return time.monotonic() - self._declined_at < MODESTY

    def _open(self) -> Session | None:
        try:
            session = self.broker.open_session(self.queue_name, self.prefetch)
        except ConnectionClosed as error:
            self._is_away(error)
            return None
        except (pika.exceptions.ChannelClosed, RelierConfigError) as error:
            logger.error("RabbitMQ refuses a consumer.", extra={"queue": self.queue_name, "error": describe(error)})
            time.sleep(REFUSED_PAUSE)
            return None
        self._pause = FIRST_PAUSE
        return session

    def _is_away(self, error: ConnectionClosed) -> None:
        time.sleep(self._pause)
        if self._pause < PAUSE:
            self._pause = min(2 * self._pause, PAUSE)
            if self._pause == PAUSE:
                logger.warning("The broker is away.", extra={"queue": self.queue_name, "error": str(error)})

    def _decode(self, session: Session, tag: int, body: bytes) -> tuple[RabbitmqDelivery, Exception | None]:
        error: Exception | None = None
        try:
            message = Message.decode(body)
            if message.queue_name != self.queue_name:
                message = message.copy(queue_name=self.queue_name)
        except (DecodeError, AttributeError, TypeError) as found:
            error, message = found, Message(self.queue_name, "", (), {}, {})
        delivery = RabbitmqDelivery(message, body, session, tag)
        session.hold(delivery)
        return delivery, error

    def _offer(self, delivery: RabbitmqDelivery, error: Exception | None) -> MessageProxy | None:
        """Return a delivery that is to be run; others the store takes."""
        self._stuck = None
        if not delivery.session.is_open or delivery.started is False:
            return None
        try:
            if not self._store_takes(delivery, error):
                if is_internal(self.queue_name):  # Disposable: it would come back beside its successor.
                    delivery.session.settle(delivery, remove=True)
                return delivery
            self.ack(delivery)
        except UNAVAILABLE:
            self._stuck = (delivery, error)
            time.sleep(PAUSE)
        return None

    def _store_takes(self, delivery: RabbitmqDelivery, error: Exception | None) -> bool:
        if error is None:
            broker = self.broker
            if broker.refuse(delivery):
                return True
            return not is_internal(self.queue_name) and (broker.keep_delay(delivery) or self._declines(delivery))
        logger.error("A message cannot be decoded; it is kept as a dead letter.", extra={"queue": self.queue_name})
        self.broker.dead_letter_raw(delivery, sha256(delivery.raw).hexdigest()[:32], error)
        return True

    def _declines(self, delivery: RabbitmqDelivery) -> bool:
        declined = self.broker.decline(delivery)
        if declined and is_lane(self.queue_name):
            self._declined_at = time.monotonic()
        return declined

    def _leave_behind(self, session: Session) -> Session | None:
        """Go on with a new session, so that messages which wait for the store's disk hold up no others."""
        self._behind = [old for old in self._behind if old.is_open]
        if len(self._behind) >= MOST_BEHIND:
            return session
        self._behind.append(session)
        session.retire(give_back=False)
        return None

    def _retire(self, but_begun: bool = False) -> list[Session]:
        """Take nothing any more; returns the sessions on which something may still be settled."""
        sessions = [*self._behind, self._session] if self._session is not None else self._behind
        self._session, self._behind = None, [session for session in sessions if session.is_open]
        for session in self._behind:
            session.retire(but_begun=but_begun)
        return self._behind

    # -- the worker threads -------------------------------------------------------------------------------------

    def ack(self, message: Any) -> None:
        """Settle a message where it came from; at once, or when the store's custody of its task is durable."""
        if message.waits_for_commit(self.ack):
            return
        if message.give_back or message.pledge is None:
            message.session.settle(message, remove=not message.give_back)
            return
        message.waits_for_store = True
        self.broker.store.custody.when_durable(
            message.pledge, lambda durable: message.session.settle(message, remove=durable)
        )

    def nack(self, message: Any) -> None:
        """Keep a rejected message as a dead letter of the store; RabbitMQ's own dead-letter queue stays empty."""
        error = message._exception or RuntimeError("The message was rejected.")
        try:
            self.broker.dead_letter(message, type(error).__name__, error)
        except UNAVAILABLE as lost:
            raise ConnectionClosed(lost) from None  # type: ignore[no-untyped-call]
        self.ack(message)

    def requeue(self, messages: Iterable[Any]) -> None:
        """Give messages back to their queue, at its head."""
        for message in messages:
            message.session.settle(message, remove=False)

    def close(self) -> None:
        """Take no more messages. What runs is settled when it is done: the connection stays."""
        end = time.monotonic() + FAREWELL
        for session in self._retire():
            session.wait_settled(max(0.0, end - time.monotonic()))
