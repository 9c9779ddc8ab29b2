"""A broker within the process, for tests: what it holds ends with it. See `relier.testing`."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any
from uuid import uuid4

from dramatiq import Message
from dramatiq.broker import Consumer
from dramatiq.common import dq_name, q_name
from dramatiq.errors import DecodeError, QueueNotFound
from dramatiq.middleware import Middleware

from relier.brokers.delivery import Delivery
from relier.brokers.own import OwnBroker
from relier.brokers.place import Place
from relier.preflight import Finding
from relier.pushing import Publish
from relier.queues import lane_of
from relier.settings import Settings
from relier.store import Store


class MemoryDelivery(Delivery):
    """A copy of a message that the test process runs."""

    def may_start(self) -> bool:
        return True


class MemoryBroker(OwnBroker):
    """Keeps messages in order, the store's copies ahead; `take` gives them out one by one.

    Parameters:
      settings: those under which Relier is installed.
      store: where fates are decided.
      middleware: of the application; Relier's own are added.
      clock: returns the time (s since the epoch) at which messages are made.
    """

    def __init__(
        self, settings: Settings, store: Store, middleware: list[Middleware], clock: Callable[[], float]
    ) -> None:
        super().__init__(middleware=middleware)
        self.settings = settings
        self.broker_id = "memory"
        self.__dict__["store"] = store
        self._clock = clock
        self._lock = threading.Lock()
        self._copies: deque[tuple[str, bytes]] = deque()
        self._lanes: deque[tuple[str, bytes]] = deque()
        self._complete()
        self.__dict__["relier_installation"].__dict__["store"] = store

    # -- producing ----------------------------------------------------------------------------------------------

    def declare_queue(self, queue_name: str) -> None:
        if queue_name in self.queues:
            return
        self.emit_before("declare_queue", queue_name)
        self.queues[queue_name] = None
        self.emit_after("declare_queue", queue_name)
        self.delay_queues.add(dq_name(queue_name))
        self.emit_after("declare_delay_queue", dq_name(queue_name))

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        return super().enqueue(self._dated(message), delay=delay)

    def enqueue_many(self, messages: Iterable[Message[Any]]) -> list[Message[Any]]:
        return self._publish(self._first_hand(map(self._dated, messages)), self._append)

    def publish_many(self, messages: Iterable[Message[Any]]) -> list[Message[Any]]:
        return self._publish([m.copy(queue_name=lane_of(m.queue_name)) for m in messages], self._append_to_lanes)

    def _dated(self, message: Message[Any]) -> Message[Any]:
        return replace(message, message_timestamp=int(self._clock() * 1000))

    def _send(self, message: Message[Any]) -> Message[Any]:
        return self._publish([message], self._append)[0]

    def _publish(self, messages: list[Message[Any]], append: Publish) -> list[Message[Any]]:
        for message in messages:
            if q_name(message.queue_name) not in self.queues:
                raise QueueNotFound(q_name(message.queue_name))  # type: ignore[no-untyped-call]
            self._announce(message)
        self._out(messages, append)
        for message in messages:
            self.emit_after("enqueue", message, None)
        return messages

    def _append(self, messages: list[Message[Any]]) -> None:
        copies = [(message.queue_name, self._encoded(message)) for message in messages]
        with self._lock:
            self._copies.extend(copies)

    def _append_to_lanes(self, messages: list[Message[Any]]) -> None:
        copies = [(message.queue_name, message.encode()) for message in messages]
        with self._lock:
            self._lanes.extend(copies)

    # -- consuming ----------------------------------------------------------------------------------------------

    def take(self) -> MemoryDelivery | None:
        """Return the next copy that is to be run here; None when there is none. What the store takes is left out,
        and what a paused queue holds."""
        while True:
            with self._lock:
                found = self._next(self._lanes) or self._next(self._copies)
            if found is None:
                return None
            queue, raw = found
            delivery, error = self._decoded(queue, raw)
            if error is not None:
                self.dead_letter_raw(delivery, str(uuid4()), error)
            elif not (self.refuse(delivery) or self.keep_delay(delivery) or self.decline(delivery)):
                # Its age, for whoever compares it with this host's clock.
                ahead = int((self._clock() - time.time()) * 1000)
                dated = replace(delivery._message, message_timestamp=delivery.message_timestamp - ahead)
                delivery._message = dated
                return delivery

    def _next(self, waiting: deque[tuple[str, bytes]]) -> tuple[str, bytes] | None:
        """Remove and return the first copy of a queue that is open; None when there is none."""
        for i, (queue, raw) in enumerate(waiting):
            if not self.is_closed(queue):
                del waiting[i]
                return queue, raw
        return None

    def _decoded(self, queue: str, raw: bytes) -> tuple[MemoryDelivery, Exception | None]:
        try:
            return MemoryDelivery(Message.decode(raw).copy(queue_name=queue), raw), None
        except (DecodeError, AttributeError, TypeError) as error:
            return MemoryDelivery(Message(queue, "", (), {}, {}), raw), error

    def finish(self, message: Any) -> None:
        """Remove a copy that was run, as a consumer thread of Dramatiq's worker does."""
        name = "nack" if message.failed else "ack"
        self.emit_before(name, message)
        if message.failed:
            error = message._exception or RuntimeError("The message was rejected.")
            self.dead_letter(message, type(error).__name__, error)
        self._acknowledge(message)
        self.emit_after(name, message)

    def _acknowledge(self, message: Any) -> None:
        if message.waits_for_commit(self._acknowledge):
            return
        if message.give_back:
            with self._lock:
                self._copies.appendleft((message.queue_name, message.raw))
        message.removed(not message.give_back)

    def inject(self, queue: str, raw: bytes) -> None:
        """Append bytes as they are, as another process may have sent them."""
        with self._lock:
            self._copies.append((queue, raw))

    def waiting(self) -> list[bytes]:
        with self._lock:
            return [raw for _, raw in (*self._lanes, *self._copies)]

    def depth(self, queue: str) -> int:
        with self._lock:
            return sum(q_name(name) == queue for name, _ in (*self._lanes, *self._copies))

    def lane_depth(self, queue: str) -> int:
        with self._lock:
            return sum(q_name(name) == queue for name, _ in self._lanes)

    def has_queue(self, queue: str) -> bool:
        return queue in self.queues

    def do_qsize(self, queue_name: str) -> int:
        return self.depth(q_name(queue_name))

    def flush(self, queue_name: str) -> None:
        """Drop the messages of a queue."""
        with self._lock:
            for waiting in (self._lanes, self._copies):
                kept = [(name, raw) for name, raw in waiting if q_name(name) != queue_name]
                waiting.clear()
                waiting.extend(kept)

    def flush_all(self) -> None:
        """Drop every message."""
        for queue in self.get_declared_queues():
            self.flush(queue)

    # -- what one process alone needs not -----------------------------------------------------------------------

    @property
    def shares_redis(self) -> bool:
        """Messages end with the process, so there is no custody to wait for."""
        return True

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 30_000) -> Consumer:
        raise NotImplementedError("Tasks of a test are run by relier.testing.Testing, not by a worker.")

    def return_unacked(self, broker_id: str, queues: Iterable[str]) -> None:
        """Nothing is held but what runs."""

    def known_broker_ids(self) -> set[str]:
        return set()

    def renew_broker_id(self) -> None:
        """Nobody else consumes."""

    def withdraw(self) -> None:
        """Nothing is held but what runs."""

    def resume(self) -> None:
        """Nothing was withdrawn."""

    def place(self) -> Place:
        return Place("memory", f"{id(self):x}")

    def inspect(self) -> Iterable[Finding]:
        return ()

    def close(self) -> None:
        """There is no connection."""
