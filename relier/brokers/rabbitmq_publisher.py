"""Publishes to RabbitMQ: one connection a process, on which every message is confirmed."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import pika

from relier.brokers.rabbitmq_connection import Link, Parameters, closed
from relier.brokers.rabbitmq_frames import Frames

logger = logging.getLogger(__name__)

#: Longest time (s) that a caller waits until its messages are confirmed.
PUBLISH_TIMEOUT = 15.0
#: Pauses (s) before further tries when a connection cannot be made; then everybody who waits is told.
RECONNECT_PAUSES = (0.05, 0.15, 0.3)
#: How often a message is sent at most, when its connection is lost unconfirmed each time.
SENDINGS = 3


@dataclass(slots=True, eq=False)
class Outgoing:
    """One message on its way."""

    queue: str
    body: bytes
    call: _Call
    sendings: int = 0


class _Call:
    """What one caller waits for."""

    __slots__ = ("abandoned", "done", "error", "missing", "open")

    def __init__(self) -> None:
        #: How many messages are not confirmed.
        self.open = 0
        self.error: BaseException | str | None = None
        #: Messages that came back because there is no such queue.
        self.missing: list[Outgoing] = []
        self.abandoned = False
        self.done = threading.Lock()
        self.done.acquire()

    def is_over(self) -> bool:
        return not self.done.locked()

    def end(self) -> None:
        if self.done.locked():
            self.done.release()


class NoSuchQueue(Exception):
    """RabbitMQ has no queue for some messages; all others of the call are confirmed."""

    def __init__(self, missing: list[Outgoing]) -> None:
        super().__init__(", ".join(sorted({message.queue for message in missing})))
        self.missing = missing


class Publisher:
    """Sends messages of any number of threads over one connection; each caller returns when its own are confirmed.

    What was unconfirmed when a connection was lost is sent again; the claim tells copies of one task apart.

    Parameters:
      parameters: how to reach each server.
    """

    def __init__(self, parameters: list[Parameters]) -> None:
        self._link = Link(parameters, self._up, self._down, self._is_busy)
        self._waiting: deque[Outgoing] = deque()
        #: Sent and not confirmed, by delivery tag, oldest first.
        self._sent: dict[int, Outgoing] = {}
        self._tag = 0
        self._channel: Any = None
        self._frames: Any = None
        self._ready = False
        self._blocked = ""
        #: How often in a row no connection could be made.
        self._failures = 0
        #: Whether the link's thread is to look at what waits, so that it need not be woken again.
        self._nudged = False

    # -- from any thread ----------------------------------------------------------------------------------------

    def publish(self, messages: list[tuple[str, bytes]]) -> None:
        """Send pairs of queue and body; returns when RabbitMQ has confirmed that it keeps them all.

        Raises Dramatiq's `ConnectionClosed` when it is away, blocks publishers (memory or disk alarm), refuses a
        message, or does not answer within `PUBLISH_TIMEOUT` seconds: each message may have been accepted or not.
        Raises `NoSuchQueue` when there is no queue for some of them.
        """
        if not messages:
            return
        call = _Call()
        call.open = len(messages)
        self._waiting.extend(Outgoing(queue, body, call) for queue, body in messages)
        end = time.monotonic() + PUBLISH_TIMEOUT
        if not (self._ready and self._link.call_and_drive(self._send, call.is_over, end)) and not self._nudged:
            self._nudged = True
            self._link.call(self._send)
        if not call.done.acquire(timeout=max(0.0, end - time.monotonic())):
            call.abandoned = True
            raise closed("no confirmation in time.")
        if call.error is not None:
            raise closed(call.error)
        if call.missing:
            raise NoSuchQueue(call.missing)

    def close(self) -> None:
        """Close the connection; a later `publish` opens another."""
        self._link.close()

    # -- on the thread that drives the link ---------------------------------------------------------------------

    def _is_busy(self) -> bool:
        return bool(self._sent or self._waiting)

    def _send(self) -> None:
        self._nudged = False
        if self._blocked:
            self._fail_all(f"publishers are blocked ({self._blocked}).")
        elif self._ready:
            while self._waiting:
                self._send_one(self._waiting.popleft())
            self._frames.flush()
        elif self._waiting:
            self._link.demand()

    def _send_one(self, message: Outgoing) -> None:
        if message.call.abandoned or message.call.error is not None:
            return
        self._tag += 1
        message.sendings += 1
        self._sent[self._tag] = message
        self._frames.publish(message.queue, message.body)

    def _up(self, connection: pika.SelectConnection) -> None:
        connection.add_on_connection_blocked_callback(self._now_blocked)
        connection.add_on_connection_unblocked_callback(self._now_unblocked)
        connection.channel(on_open_callback=self._opened)

    def _opened(self, channel: Any) -> None:
        self._channel, self._tag, self._frames = channel, 0, Frames(channel)
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._returned)
        channel.confirm_delivery(self._confirmed, self._selected)

    def _selected(self, _: Any) -> None:
        self._ready, self._failures = True, 0
        self._send()

    def _now_blocked(self, _: Any, method: Any) -> None:
        self._blocked = str(method.method.reason)
        logger.warning("RabbitMQ blocks publishers.", extra={"reason": self._blocked})
        self._fail_all(f"publishers are blocked ({self._blocked}).")

    def _now_unblocked(self, _: Any, __: Any) -> None:
        self._blocked = ""
        logger.info("RabbitMQ lets publishers go on.")

    def _channel_closed(self, channel: Any, error: BaseException) -> None:
        if channel is self._channel:
            self._channel, self._ready = None, False
            self._link.drop(error)

    def _down(self, error: BaseException) -> None:
        """Send again what is not confirmed; when RabbitMQ cannot be reached, tell everybody who waits."""
        if not self._ready:
            self._failures += 1
        self._ready, self._channel, self._blocked = False, None, ""
        unsure = list(self._sent.values())
        self._sent.clear()
        self._waiting.extendleft(reversed(unsure))
        for message in unsure:
            if message.sendings >= SENDINGS:
                self._fail(message.call, error)
        if self._failures > len(RECONNECT_PAUSES):
            self._failures = 0
            self._fail_all(error)
        elif self._failures:
            self._link.later(RECONNECT_PAUSES[self._failures - 1], self._send)
        else:
            self._send()

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        kept = isinstance(method, pika.spec.Basic.Ack)
        tags = [method.delivery_tag]
        if method.multiple:
            tags = list(takewhile(lambda tag: tag <= method.delivery_tag, self._sent))
        for tag in tags:
            message = self._sent.pop(tag, None)
            if message is not None:
                self._settle(message.call, None if kept else "a message was refused.")

    def _settle(self, call: _Call, error: str | None) -> None:
        call.open -= 1
        if error is not None:
            call.error = error
        if call.open <= 0 or error is not None:
            call.end()

    def _returned(self, _: Any, method: Any, __: Any, body: bytes) -> None:
        """Note a message for which there is no queue; its confirmation follows."""
        for message in self._sent.values():
            if message.queue == method.routing_key and message.body == body and message not in message.call.missing:
                message.call.missing.append(message)
                return

    def _fail(self, call: _Call, error: BaseException | str) -> None:
        call.error = error
        call.end()

    def _fail_all(self, error: BaseException | str) -> None:
        for message in (*self._waiting, *self._sent.values()):
            self._fail(message.call, error)
        self._waiting.clear()
