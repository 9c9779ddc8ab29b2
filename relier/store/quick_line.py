"""A connection for calls that must delay nobody: made by a thread of its own, given up when no answer comes in time."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.connection import AbstractConnection

from relier.store.admissions import Call
from relier.store.connection import IDLE, UNAVAILABLE

logger = logging.getLogger(__name__)

#: Pauses (s) of the thread that connects, between its tries: the first, and the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0
#: When nobody has asked for so long (s), it stops trying.
GIVE_UP_AFTER = 10.0


class QuickLine:
    """One connection of a process, used by one caller at a time.

    Nothing is sent twice, and nothing that was given up is looked after: a late call must do no harm.

    Parameters:
      client: tells how to connect; called on the thread that connects, since that may take long (names, Sentinel).
    """

    def __init__(self, client: Callable[[], redis.Redis]) -> None:
        self._client = client
        self._begin()
        _opened.add(self)

    def _begin(self) -> None:
        self._connection: AbstractConnection | None = None
        self._used = 0.0
        self._asked = 0.0
        self._connecting: threading.Thread | None = None
        self._starting = threading.Lock()
        #: Set once it is known whether a connection can be made.
        self._tried = threading.Event()
        self._error: Exception | None = None

    def run(self, calls: Sequence[Call], end: float) -> list[Any]:
        """Run scripts in one round trip; returns replies, errors among them.

        Raises what `UNAVAILABLE` names: at once while the store is known to be away, else when there is no answer
        until `end`, a reading of the monotonic clock.
        """
        connection = self._connected(end)
        try:
            replies = self._exchange(connection, [(*s.by_sha, len(k), *k, *a) for s, k, a in calls], end)
            missing = [i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
            if missing:
                sources = [(*s.by_source, len(k), *k, *a) for s, k, a in (calls[i] for i in missing)]
                for i, reply in zip(missing, self._exchange(connection, sources, end), strict=True):
                    replies[i] = reply
            for reply in replies:
                if isinstance(reply, UNAVAILABLE):  # As from a replica: the next connection may lead to the master.
                    raise reply
            return replies
        except BaseException as error:
            self._drop(error if isinstance(error, Exception) else None)
            raise

    def _exchange(self, connection: AbstractConnection, commands: list[tuple[Any, ...]], end: float) -> list[Any]:
        connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        self._used = time.monotonic()
        return [_read(connection, end) for _ in commands]

    def _connected(self, end: float) -> AbstractConnection:
        now = self._asked = time.monotonic()
        if self._connection is not None and now - self._used > IDLE and _is_closed(self._connection):
            self._connection.disconnect()
            self._connection = None
            self._tried.clear()
        if self._connection is None:
            self._connect_meanwhile()
            if not self._tried.wait(max(0.0, end - time.monotonic())):
                raise redis.TimeoutError("no connection in time")
        connection = self._connection
        if connection is None:
            raise self._error or redis.ConnectionError("no connection")
        return connection

    def _drop(self, error: Exception | None) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
        self._error = error
        self._connect_meanwhile()

    # -- the thread that connects -------------------------------------------------------------------------------

    def _connect_meanwhile(self) -> None:
        with self._starting:
            if self._connecting is None:
                self._connecting = threading.Thread(target=self._connect, name="relier-admission", daemon=True)
                self._connecting.start()

    def _connect(self) -> None:
        pause = FIRST_PAUSE
        while True:
            try:
                connection = self._open()
            except Exception as error:
                if not isinstance(error, UNAVAILABLE):
                    logger.debug("The connection for admission could not be made.", exc_info=True)
                self._error = error
            else:
                with self._starting:
                    self._connection, self._connecting, self._used = connection, None, time.monotonic()
                self._tried.set()
                return
            self._tried.set()
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            with self._starting:
                if time.monotonic() - self._asked > GIVE_UP_AFTER:
                    self._connecting = None
                    return

    def _open(self) -> AbstractConnection:
        pool = self._client().connection_pool
        connection: AbstractConnection = pool.connection_class(**pool.connection_kwargs)
        try:
            connection.connect()
            connection.send_command("PING", check_health=False)
            connection.read_response()
        except BaseException:
            connection.disconnect()
            raise
        return connection

    # -- its end ------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection; a later call opens another."""
        connection, self._connection = self._connection, None
        self._tried.clear()
        if connection is not None:
            connection.disconnect()

    def forget(self) -> None:
        """Close a forked child's copy of the socket; it makes a connection of its own."""
        sock = getattr(self._connection, "_sock", None)
        if sock is not None and sock.fileno() >= 0:
            os.close(sock.detach())
        self._begin()


def _read(connection: AbstractConnection, end: float) -> Any:
    try:
        return connection.read_response(timeout=max(0.001, end - time.monotonic()))
    except redis.ResponseError as error:
        return error


def _is_closed(connection: AbstractConnection) -> bool:
    try:
        return connection.can_read(0)  # Nobody waits for a reply: whatever is there is its end.
    except (redis.ConnectionError, OSError):
        return True


_opened: weakref.WeakSet[QuickLine] = weakref.WeakSet()


def _in_child() -> None:
    for line in list(_opened):
        line.forget()


os.register_at_fork(after_in_child=_in_child)
