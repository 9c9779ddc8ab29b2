"""A process's control channel: its subscription is its sign of life, its messages are requests from outside."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import redis

from relier.endurance import endless
from relier.store import Store
from relier.store.connection import UNAVAILABLE

logger = logging.getLogger(__name__)

#: Version of the messages on control channels; others are ignored.
MESSAGE_FORMAT = 1

#: Longest time (s) without a word before the connection is probed; half the socket timeout where that is less. A
#: half-open connection is noticed after twice as long.
PROBE_INTERVAL = 3.0

Handler = Callable[[dict[str, Any]], None]


class Endpoint(NamedTuple):
    """The server that a connection leads to."""

    family: socket.AddressFamily
    address: Any


_channels: weakref.WeakSet[ControlChannel] = weakref.WeakSet()


class ControlChannel(threading.Thread):
    """Stays subscribed to the channel of one worker identity, whatever happens to the connection.

    Parameters:
      store: where the channel is.
      identity: returns the worker's identity now; a new one is followed at once.
      handler: gets each message, on this thread.
    """

    def __init__(self, store: Store, identity: Callable[[], str], handler: Handler) -> None:
        super().__init__(name="relier-control", daemon=True)
        self._store = store
        self._identity = identity
        self._handler = handler
        timeout = store.client.connection_pool.connection_kwargs.get("socket_timeout") or 2 * PROBE_INTERVAL
        self._probe_after = min(PROBE_INTERVAL, timeout / 2)
        self._stopped = threading.Event()
        self._connection: Any = None
        #: Grows with each interruption: two equal values mean "not interrupted in between".
        self.session = 0
        #: The identity that is subscribed now.
        self.subscribed_as = ""
        #: Set while subscribed.
        self.subscribed = threading.Event()
        _channels.add(self)

    def run(self) -> None:
        endless(self._stay_subscribed, self._stopped)()

    def _stay_subscribed(self) -> None:
        while not self._stopped.is_set():
            try:
                self._listen()
            except UNAVAILABLE as error:
                logger.debug("Control channel interrupted.", extra={"error": type(error).__name__})
            except Exception:
                logger.exception("Control channel failed.")
            self.session += 1
            self.subscribed.clear()
            self.subscribed_as = ""
            self._close()
            # Reconnect at once: others watch this subscription. Only a server that is away is given a pause.
            self._stopped.wait(0.0 if self._answers() else 0.1)

    def _answers(self) -> bool:
        try:
            return bool(self._store.runner.command("PING"))
        except (redis.RedisError, OSError):
            return False

    def _listen(self) -> None:
        identity = self._identity()
        generation = self._store.runner.generation
        connection = self._connect(identity)
        heard = time.monotonic()
        while not self._stopped.is_set() and self._identity() == identity:
            if generation != self._store.runner.generation:
                generation = self._see_itself(identity, generation)
            if connection.can_read(timeout=0.25):
                self._receive(connection.read_response())
                heard = time.monotonic()
            elif time.monotonic() - heard > 2 * self._probe_after:
                raise redis.ConnectionError("no answer to the probe")
            elif time.monotonic() - heard > self._probe_after:
                connection.send_command("PING", check_health=False)

    def _see_itself(self, identity: str, seen_in: int) -> int:
        """See that this subscription is where others look for it: its server may live on as a replica, or be cut off.

        Returns the generation of the store's connections in which it was seen last. Raises `ConnectionError` when it is
        not there.
        """
        generation = self._store.runner.generation
        try:
            present = self._store.fleet.present([identity])[identity]
        except UNAVAILABLE:
            return seen_in
        if not present:
            raise redis.ConnectionError("The subscription is at a server that is no longer asked.")
        return generation

    def _connect(self, identity: str) -> Any:
        pool = self._store.client.connection_pool
        connection: Any = pool.connection_class(**pool.connection_kwargs)
        self._connection = connection
        connection.connect()  # Sending would connect as well, but to no place that Sentinels or a Cluster name.
        connection.send_command(self._store.runner.channels.subscribe, self._store.keys.control(identity))
        connection.read_response()
        self.subscribed_as = identity
        self.subscribed.set()
        return connection

    def _receive(self, reply: Any) -> None:
        channels = self._store.runner.channels
        if isinstance(reply, list) and reply[0] == channels.over:
            raise redis.ConnectionError("The server has ended the subscription: it is no longer the channel's.")
        if not isinstance(reply, list) or reply[0] != channels.message:
            return
        try:
            message = json.loads(reply[2])
        except ValueError:
            logger.warning("Ignored a control message that is no JSON.")
            return
        if not isinstance(message, dict) or message.get("v") != MESSAGE_FORMAT:
            logger.warning("Ignored a control message of another version.")
            return
        try:
            self._handler(message)
        except Exception:
            logger.exception("A control message could not be handled.", extra={"type": message.get("type")})

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def endpoint(self) -> Endpoint | None:
        """Return where the subscription leads to; None while it is interrupted."""
        sock = getattr(self._connection, "_sock", None)
        if sock is None or not self.subscribed.is_set():
            return None
        try:
            return Endpoint(sock.family, sock.getpeername())
        except OSError:
            return None

    def stop(self) -> None:
        """Unsubscribe and end."""
        self._stopped.set()
        if self.is_alive() and self is not threading.current_thread():
            self.join(timeout=2)

    def forget(self) -> None:
        """Close a forked child's copy of the socket, so that the parent's death still shows."""
        sock = getattr(self._connection, "_sock", None)
        if sock is not None:
            os.close(sock.detach())
        self._connection = None


def _in_child() -> None:
    for channel in list(_channels):
        channel.forget()


os.register_at_fork(after_in_child=_in_child)
