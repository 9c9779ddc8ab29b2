"""The consumer of Relier's Redis broker."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import redis
from dramatiq import Message
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed, DecodeError

if TYPE_CHECKING:
    from relier.brokers.redis import RelierRedisBroker

logger = logging.getLogger(__name__)

#: Pause (s) after the first empty fetch; it doubles up to LONGEST_PAUSE.
FIRST_PAUSE = 0.005
#: Longest pause (s) between two empty fetches: bounds how late an idle worker notices a task.
LONGEST_PAUSE = 0.1


class Delivery(MessageProxy):
    """A message that a broker id holds."""

    def __init__(self, message: Message[Any], raw: bytes, broker: RelierRedisBroker, broker_id: str) -> None:
        super().__init__(message)
        self.raw = raw
        self.broker_id = broker_id
        self.redis_id: str = message.options["redis_message_id"]
        #: Set by the acknowledgement: whether it removed the copy.
        self.removal_confirmed = False
        self._broker = broker

    def is_valid(self) -> bool:
        """Whether this process still holds the copy; false after it was declared dead."""
        return self.broker_id == self._broker.broker_id


class RedisConsumer(Consumer):
    """Fetches in batches, refills before it runs dry, and never loses what it fetched.

    Parameters:
      broker: RelierRedisBroker.
      queue_name: the queue or delay lane.
      prefetch: most messages held at once.
      timeout: longest wait in milliseconds before the consumer thread looks around.
    """

    def __init__(self, broker: RelierRedisBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self.broker = broker
        self.queue_name = queue_name
        self.prefetch = prefetch
        self.timeout = timeout / 1000
        self._cache: deque[tuple[str, bytes]] = deque()
        self._outstanding: set[str] = set()
        self._room = threading.Condition()
        self._pause = FIRST_PAUSE
        self._broker_id = ""
        self._step = max(1, prefetch // 4)

    def __next__(self) -> MessageProxy | None:
        try:
            if self._broker_id != self.broker.broker_id:
                self._attach()
            if not self._cache:
                self._refill()
            return self._take()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]

    def _attach(self) -> None:
        """Begin under the broker's id of now; return what an earlier consumer's lost reply left behind."""
        broker_id = self.broker.broker_id
        self.broker.attach()
        self._cache.clear()
        with self._room:
            self._outstanding.clear()
        if self.broker.reclaim(self.queue_name, broker_id):
            logger.warning("Returned messages that were fetched but never arrived.", extra={"queue": self.queue_name})
        self._broker_id = broker_id

    def _refill(self) -> None:
        room = self._wait_for_room()
        if not room:
            return
        fetched = self.broker.fetch(self.queue_name, self._broker_id, room)
        if fetched is None:
            # The heartbeat finds out as well, and brings a new identity; until then there is nothing to take.
            self._wait(LONGEST_PAUSE)
        elif fetched:
            self._pause = FIRST_PAUSE
            self._cache.extend(fetched)
        else:
            self._wait(self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE, self.timeout)

    def _wait_for_room(self) -> int:
        with self._room:
            if self.prefetch - len(self._outstanding) < self._step:
                self._room.wait_for(lambda: self.prefetch - len(self._outstanding) >= self._step, self.timeout)
            return max(0, self.prefetch - len(self._outstanding))

    def _wait(self, seconds: float) -> None:
        with self._room:
            self._room.wait(seconds)

    def _take(self) -> MessageProxy | None:
        while self._cache:
            redis_id, data = self._cache.popleft()
            try:
                message = Message.decode(data)
                if message.queue_name != self.queue_name or message.options.get("redis_message_id") != redis_id:
                    message = message.copy(queue_name=self.queue_name, options={"redis_message_id": redis_id})
            except (DecodeError, AttributeError, TypeError) as error:
                self._undecodable(redis_id, data, error)
                continue
            with self._room:
                self._outstanding.add(redis_id)
            return Delivery(message, data, self.broker, self._broker_id)
        return None

    def ack(self, message: Any) -> None:
        try:
            if message.is_valid():  # Else the copy was returned, and its removal is somebody else's.
                message.removal_confirmed = self.broker.ack(self.queue_name, message.broker_id, message.redis_id)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]
        self._let_go(message.redis_id)

    def nack(self, message: Any) -> None:
        """Keep a rejected message as a dead letter of the store; the broker's own dead-letter queue stays empty."""
        error = message._exception or RuntimeError("The message was rejected.")
        self.broker.dead_letter(message, type(error).__name__, error)
        self.ack(message)

    def _undecodable(self, redis_id: str, data: bytes, error: Exception) -> None:
        logger.error("A message cannot be decoded; it is kept as a dead letter.", extra={"queue": self.queue_name})
        self.broker.dead_letter_raw(redis_id, self.queue_name, data, error)
        self.broker.ack(self.queue_name, self._broker_id, redis_id)

    def _let_go(self, redis_id: str) -> None:
        with self._room:
            self._outstanding.discard(redis_id)
            if self.prefetch - len(self._outstanding) >= self._step:
                self._room.notify()

    def requeue(self, messages: Iterable[Any]) -> None:
        ids = [message.redis_id for message in messages if message.is_valid()]
        if ids:
            self.broker.requeue(self.queue_name, self._broker_id, ids)
            for redis_id in ids:
                self._let_go(redis_id)

    def close(self) -> None:
        """Return what was fetched but not yet handed to a worker thread."""
        ids = [redis_id for redis_id, _ in self._cache]
        self._cache.clear()
        if ids and self._broker_id == self.broker.broker_id:
            try:
                self.broker.requeue(self.queue_name, self._broker_id, ids)
            except (redis.ConnectionError, redis.TimeoutError):
                self.broker.let_go(self.queue_name, ids)  # The next consumer reclaims them.
