"""The consumer of Relier's Redis broker."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis
from dramatiq import Message
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed, DecodeError

from relier.brokers.delivery import Delivery
from relier.queues import is_lane

if TYPE_CHECKING:
    from relier.brokers.redis import RelierRedisBroker

logger = logging.getLogger(__name__)

#: Pause (s) after the first empty fetch; it doubles up to LONGEST_PAUSE.
FIRST_PAUSE = 0.005
#: Longest pause (s) between two empty fetches: bounds how late an idle worker notices a task.
LONGEST_PAUSE = 0.1
#: Longest wait (s) for room, after which noted acknowledgements are sent anyhow.
LONGEST_WAIT = 0.25
#: Pause (s) of a worker before it takes the next copy of the store's, after one that its code cannot run: workers that
#: can shall come first. Then it takes a single one.
MODESTY = 0.25
#: Most acknowledgements in one call.
ACKS_AT_ONCE = 500


class RedisDelivery(Delivery):
    """A copy that a broker id holds: fetched from one server, over a connection that is not lost yet."""

    def __init__(self, message: Message[Any], raw: bytes, broker: RelierRedisBroker, origin: Origin) -> None:
        super().__init__(message, raw)
        self.origin = origin
        self.redis_id: str = message.options["redis_message_id"]
        self._broker = broker

    def may_start(self) -> bool:
        self.started = self.is_held() and self.origin.generation == self._broker.runner.generation
        return self.started

    def is_held(self) -> bool:
        """Whether this worker has not been declared dead since the fetch."""
        return self.origin.broker_id == self._broker.broker_id


@dataclass(frozen=True, slots=True)
class Origin:
    """Where copies come from."""

    broker_id: str = ""
    generation: int = -1
    server: str = ""


class RedisConsumer(Consumer):
    """Acknowledges and fetches in batches, refills before it runs dry, and never loses what it fetched.

    An acknowledgement is noted and sent with the next fetch. A crash in between redelivers the message, and its claim
    finds the task settled.

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
        self.timeout = min(timeout / 1000, LONGEST_WAIT)
        self._fetched: deque[tuple[str, bytes]] = deque()
        #: Messages that worker threads have, by id.
        self._running: dict[str, RedisDelivery] = {}
        self._acks = broker.pending_acks(queue_name)
        self._changed = threading.Condition()
        self._pause = FIRST_PAUSE
        self._origin = Origin()
        #: Whether a copy was dropped since it was held, so that Redis still counts it as this worker's.
        self._dropped = False
        self._away = False
        #: Whether a copy of the store's was declined since the last fetch.
        self._declined = False
        self._step = max(1, prefetch // 4)

    # -- the consumer thread ------------------------------------------------------------------------------------

    def __next__(self) -> MessageProxy | None:
        try:
            if not self._is_attached():
                self._attach()
                self._away = False
            if self._dropped:
                self._dropped = False
                self.broker.reclaim(self.queue_name, self._origin.broker_id)
            if self.broker.idle or self.broker.is_closed(self.queue_name):
                self._rest()
                return None
            if not self._fetched:
                self._refill()
            return self._take()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            if not self._away:
                logger.warning("The broker is away.", extra={"queue": self.queue_name, "error": type(error).__name__})
            self._away = True
            self._origin = Origin(server=self._origin.server)
            self._wait(LONGEST_PAUSE)
            return None

    def _rest(self) -> None:
        """Return what was fetched and not started, the last first; acknowledge what ends meanwhile."""
        ids = [redis_id for redis_id, _ in self._fetched]
        if ids:
            self.broker.requeue(self.queue_name, self._origin.broker_id, ids)
            self._fetched.clear()
        if unstarted := self.broker.unstarted(self.queue_name):
            self.requeue(unstarted)
        self._exchange(0)
        self._wait(LONGEST_PAUSE)

    def _is_attached(self) -> bool:
        now = self._origin
        return now.broker_id == self.broker.broker_id and now.generation == self.broker.runner.generation

    def _attach(self) -> None:
        """Begin anew: after the start, after a lost connection, after this worker was declared dead.

        What was fetched before and not started is void, and goes back to the queue with what never arrived. What was
        started may still be acknowledged, unless it is another server now: that one may have undone the fetch.
        """
        broker_id, generation = self.broker.broker_id, self.broker.runner.generation
        server = self.broker.attach()
        self._fetched.clear()
        with self._changed:
            if server != self._origin.server:
                self._running.clear()
            self._running = {redis_id: m for redis_id, m in self._running.items() if m.started and m.is_held()}
        for redis_id, message in list(self._acks.items()):
            if message.origin.server != server or not message.is_held():
                self._acks.pop(redis_id, None)
                message.removed(False)
        self.broker.hold_only(self.queue_name, (*self._running, *self._acks))
        if self.broker.reclaim(self.queue_name, broker_id):
            logger.warning("Returned messages that this worker no longer holds.", extra={"queue": self.queue_name})
        self._origin = Origin(broker_id, generation, server)

    def _refill(self) -> None:
        count = self._wait_for_room()
        if self._declined:
            self._declined = False
            time.sleep(MODESTY)
            count = min(count, 1)
        fetched = self._exchange(count)
        if fetched is None:
            # The heartbeat finds out as well, and brings a new identity; until then there is nothing to take.
            self._wait(LONGEST_PAUSE)
        elif fetched:
            self._pause = FIRST_PAUSE
            self._fetched.extend(fetched)
        elif len(self._running) < self.prefetch:
            self._wait(self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _wait_for_room(self) -> int:
        with self._changed:
            if self._room() < self._step:
                self._changed.wait_for(lambda: self._room() >= self._step, self.timeout)
            return max(0, self._room())

    def _room(self) -> int:
        return self.prefetch - len(self._running)

    def _wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait(seconds)

    def _exchange(self, count: int) -> list[tuple[str, bytes]] | None:
        """Send the noted acknowledgements and fetch up to `count` messages."""
        acks = list(self._acks.items())[:ACKS_AT_ONCE]
        if not acks and not count:
            return []
        ids = [redis_id for redis_id, _ in acks]
        removed, fetched = self.broker.exchange(self.queue_name, self._origin.broker_id, count, ids)
        for (redis_id, message), confirmed in zip(acks, removed, strict=True):
            self._acks.pop(redis_id, None)
            message.removed(confirmed)
        return fetched

    def _take(self) -> MessageProxy | None:
        while self._fetched:
            redis_id, data = self._fetched.popleft()
            delivery, error = self._decode(redis_id, data)
            with self._changed:
                self._running[redis_id] = delivery
            if error is not None:
                logger.error(
                    "A message cannot be decoded; it is kept as a dead letter.", extra={"queue": self.queue_name}
                )
                self.broker.dead_letter_raw(delivery, redis_id.partition("+")[0], error)  # The same for each delivery.
            elif not self._store_takes(delivery):
                return delivery
            self.ack(delivery)
        return None

    def _store_takes(self, delivery: RedisDelivery) -> bool:
        if self.broker.refuse(delivery) or self.broker.keep_delay(delivery):
            return True
        declined = self.broker.decline(delivery)
        self._declined = self._declined or (declined and is_lane(self.queue_name))
        return declined

    def _decode(self, redis_id: str, data: bytes) -> tuple[RedisDelivery, Exception | None]:
        here: dict[str, Any] = {"queue_name": self.queue_name, "options": {"redis_message_id": redis_id}}
        error: Exception | None = None
        try:
            message = Message.decode(data)
            if message.queue_name != self.queue_name or message.options.get("redis_message_id") != redis_id:
                message = message.copy(**here)
        except (DecodeError, AttributeError, TypeError) as found:
            error, message = found, Message(actor_name="", args=(), kwargs={}, **here)
        return RedisDelivery(message, data, self.broker, self._origin), error

    # -- the worker threads -------------------------------------------------------------------------------------

    def ack(self, message: Any) -> None:
        """Note that a message is done. A copy that this process lost is somebody else's to remove."""
        if message.waits_for_commit(self.ack):
            return
        if message.pledge is not None and not message.give_back:
            self._ack_when_durable(message)
            return
        if message.give_back:
            self._put_back(message)
        elif message.started is not False and message.is_held() and message.origin.server == self._origin.server:
            self._acks[message.redis_id] = message
        else:
            message.removed(False)
            self.broker.forget(self.queue_name, [message.redis_id])
            self._dropped = True
        with self._changed:
            self._running.pop(message.redis_id, None)
            if self._room() >= self._step:
                self._changed.notify()

    def _ack_when_durable(self, message: Any) -> None:
        pledge, message.pledge = message.pledge, None

        def settle(durable: bool) -> None:
            message.give_back = not durable
            self.ack(message)

        self.broker.store.custody.when_durable(pledge, settle)

    def _put_back(self, message: Any) -> None:
        try:
            self.requeue([message])
        except (redis.ConnectionError, redis.TimeoutError):
            self._dropped = True  # Redis still counts it as ours.
        message.removed(False)

    def nack(self, message: Any) -> None:
        """Keep a rejected message as a dead letter of the store; the broker's own dead-letter queue stays empty."""
        error = message._exception or RuntimeError("The message was rejected.")
        try:
            self.broker.dead_letter(message, type(error).__name__, error)
        except (redis.ConnectionError, redis.TimeoutError) as lost:
            raise ConnectionClosed(lost) from None  # type: ignore[no-untyped-call]
        self.ack(message)

    def requeue(self, messages: Iterable[Any]) -> None:
        """Put messages back to the head of their queue, if Redis still counts them as this worker's."""
        ids = [message.redis_id for message in messages if message.is_held()]
        if ids:
            self.broker.requeue(self.queue_name, self.broker.broker_id, ids)
            with self._changed:
                for redis_id in ids:
                    self._running.pop(redis_id, None)

    def close(self) -> None:
        """Send the acknowledgements, and return what was fetched but not yet handed to a worker thread."""
        ids = [redis_id for redis_id, _ in self._fetched]
        self._fetched.clear()
        if self._origin.broker_id != self.broker.broker_id:
            return
        try:
            while self._acks:
                self._exchange(0)
            if ids:
                self.broker.requeue(self.queue_name, self._origin.broker_id, ids)
        except (redis.ConnectionError, redis.TimeoutError):
            self.broker.forget(self.queue_name, ids)  # The next consumer acknowledges and reclaims.
