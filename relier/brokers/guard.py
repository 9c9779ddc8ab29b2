"""Stands between Dramatiq's worker and a broker's own consumer, and keeps what that one would lose."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self

from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed, DecodeError

from relier.arrivals import mark
from relier.brokers.rejected import keep_refused, keep_rejected, keep_undecodable
from relier.declining import declined
from relier.errors import PayloadIntegrityError
from relier.queues import is_internal
from relier.store.connection import UNAVAILABLE

if TYPE_CHECKING:
    from relier.brokers.generic import Adapter
    from relier.installation import Installation

logger = logging.getLogger(__name__)

#: How long (s) a consumer that is to take nothing waits before it looks around.
REST = 0.1


class GuardedConsumer(Consumer):
    """A consumer of somebody else's broker.

    Rejected messages and bytes that cannot be decoded become dead letters of the store; a copy that is to go back does
    so in place of its acknowledgement.

    Parameters:
      inner: the broker's own consumer.
      queue_name: the queue or delay lane that it consumes.
      adapter: of that broker.
      installation: whose store keeps the dead letters.
    """

    #: Whether another worker may have an actor that this process lacks.
    has_peers = True

    def __init__(self, inner: Consumer, queue_name: str, adapter: Adapter, installation: Installation) -> None:
        self.inner = inner
        self.queue_name = queue_name
        self.adapter = adapter
        self.installation = installation
        self._messages = iter(inner)

    def __iter__(self) -> Self:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __next__(self) -> MessageProxy | None:
        if self.adapter.idle:
            self.rest()
            return None
        if self.adapter.is_closed(self.queue_name):
            self.rest_closed()
            return None
        try:
            message = next(self._messages)
        except DecodeError as error:
            self._undecodable(error)
            return None
        if message is None:
            return None
        if message.queue_name != self.queue_name:  # Dramatiq's worker thread would die of it.
            message._message = message._message.copy(queue_name=self.queue_name)
        if self._refuses(message):
            return None
        message.__dict__["give_back"] = False
        message.__dict__["options_delivered"] = dict(message.options)
        return message

    def rest(self) -> None:
        """Take nothing for a moment."""
        time.sleep(REST)

    def rest_closed(self) -> None:
        """Take nothing for a moment from a queue that is paused: running tasks' acknowledgements still go through."""
        time.sleep(REST)

    def ack(self, message: MessageProxy) -> None:
        if message.__dict__.get("give_back"):
            self.adapter.put_back(self.inner, message)
        else:
            self.inner.ack(message)

    def nack(self, message: MessageProxy) -> None:
        """Keep a rejected message as a dead letter of the store, then acknowledge it."""
        if not is_internal(message.queue_name):
            self._keep(message)
        self.ack(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        self.inner.requeue(messages)

    def close(self) -> None:
        self.inner.close()

    def _keep(self, message: MessageProxy) -> None:
        """Raises what Dramatiq answers by calling again later."""
        process = self.installation.process
        generation = process.generation if process is not None else 0
        about = self.installation.store, self.adapter.broker, message, self.installation.settings
        try:
            if not self.has_peers or message.actor_name in self.adapter.broker.actors:
                keep_rejected(*about)
            elif not declined(*about):  # This worker was declared dead, and the store did not take it.
                message.__dict__["give_back"] = True
                return
        except UNAVAILABLE as error:
            raise ConnectionClosed(error) from None  # type: ignore[no-untyped-call]
        if process is None or process.shares_redis:
            return
        process.patiently(self.installation.store.durability.wait)
        if process.generation != generation:  # The server behind the new connection may not have it.
            raise ConnectionClosed(ConnectionError("the store was away"))  # type: ignore[no-untyped-call]

    def _refuses(self, message: MessageProxy) -> bool:
        """Keep a message that is not what a producer sent, before anything is done in its name."""
        store = self.installation.store
        try:
            mark(message, self.installation.integrity.examine(message._message))
            return False
        except PayloadIntegrityError as found:
            error = found
        self._entrust(lambda: keep_refused(store, message, error))
        self.inner.ack(message)
        return True

    def _entrust(self, keep: Callable[[], None]) -> None:
        """Return when the store has durably what it is to keep, so that the copy may be removed (R4)."""
        process = self.installation.process
        while True:
            generation = process.generation if process is not None else 0
            self._patiently(keep)
            if process is None or process.shares_redis:
                return
            process.patiently(self.installation.store.durability.wait)
            if process.generation == generation:  # Else the server behind the new connection may not have it.
                return

    def _patiently(self, keep: Callable[[], None]) -> None:
        """The consumer must not fail meanwhile: some lose sight of what else they fetched."""
        process = self.installation.process
        keep() if process is None else process.patiently(keep)

    def _undecodable(self, error: DecodeError) -> None:
        logger.error("A message cannot be decoded; it is kept as a dead letter.", extra={"queue": self.queue_name})
        store = self.installation.store
        self._patiently(lambda: keep_undecodable(store, self.queue_name, error.data, error))
