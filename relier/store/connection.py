"""Runs scripts on Redis: one connection a thread, no retries below us, the same call again when that is safe.

A connection that is given up while a call was on its way may still deliver that call, much later: the network holds it
back, and a claim of a task that has long ended would find no record and be granted. So whatever was given up is closed
at the server before anything else is sent to it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import redis
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool

from relier.store.channels import GLOBAL
from relier.store.lines import Lines
from relier.store.permissions import explained
from relier.store.scripts import Script

logger = logging.getLogger(__name__)

Argument = str | bytes | int | float

#: Sends commands and returns their replies.
Exchange = Callable[[Sequence[bytes]], Sequence[Any]]

#: A script, its keys and its arguments.
ScriptCall = tuple[Script, Sequence[str], Iterable[Argument]]

#: What a script call may meet while Redis is away, restarts or fails over. All of our scripts may be sent again.
UNAVAILABLE: tuple[type[Exception], ...] = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.BusyLoadingError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
    OSError,
)


#: A connection that was idle for longer (s) is checked before it is used: the server may have closed it meanwhile.
IDLE = 0.05


def no_retries() -> Retry:
    """Return redis-py's retry policy for scripts: none (its default ran a timed-out script twice)."""
    return Retry(NoBackoff(), 0)


def _packed(*command: Argument) -> bytes:
    """Return a command as it goes over the wire; redis-py's own way there takes ten times as long."""
    packed: bytes = pack_command(command)  # type: ignore[arg-type]
    return packed


class ScriptRunner:
    """Sends scripts over a connection of the calling thread's own.

    Parameters:
      client: tells how to connect. The connections are outside its pool: there is one for each thread that calls.
    """

    #: How control channels work on this store.
    channels = GLOBAL

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        #: Called when a connection was lost, before the error is raised (the embedded server: bring it back).
        self.on_lost: Callable[[], object] | None = None
        #: Grows with each lost connection: while two readings are equal, it was one server, and no call was repeated.
        self.generation = 0
        #: How often a server could not be reached, or did not answer.
        self.failures = 0
        self._local = threading.local()
        self._pid = os.getpid()
        self._connections: weakref.WeakSet[AbstractConnection] = weakref.WeakSet()
        self._knowing = threading.Lock()
        self._lines = Lines(self)
        #: Connections that may still deliver a call that was given up: server (its run id) and number there.
        self._given_up: set[tuple[bytes, int]] = set()
        #: Which server there was, by the place that a connection was made to.
        self._servers: dict[Any, bytes] = {}
        #: Whether a replica is a wrong answer: something else than a fixed address says who the master is.
        self._elected = isinstance(client.connection_pool, SentinelConnectionPool)

    def run(self, script: Script, keys: Sequence[str], args: Iterable[Argument]) -> Any:
        """Run one script and return its reply; loads it into the server's cache when it is missing."""
        return self.run_many([(script, keys, args)])[0]

    def run_many(self, calls: Sequence[ScriptCall], *, unbroken: bool = False) -> list[Any]:
        """Run several scripts in one round trip; raises the first error that one of them replied.

        `unbroken`: raise `ConnectionError` when this thread's connection is not the one used before.
        """
        if unbroken:
            self._raise_if_closed(self._connection())
        return first_error_raised(self._evaluated(calls, self._exchange))

    def run_unbroken(self, script: Script, keys: Sequence[str], args: Iterable[Argument]) -> Any:
        """Run one script on this thread's connection; raises `ConnectionError` when it is not the one used before."""
        return self.run_many([(script, keys, args)], unbroken=True)[0]

    def run_shared(self, script: Script, keys: Sequence[str], args: Iterable[Argument]) -> Any:
        """Run one script, in one round trip with those that other threads run at the same moment.

        A connection that was lost is never renewed in silence: the server behind the next one may have lost writes.
        """
        (reply,) = self.run_together((script, keys, args))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def run_together(self, *calls: ScriptCall) -> list[Any]:
        """Run several scripts like `run_shared` does one; errors that they replied are among the replies."""
        if self._pid != os.getpid():
            self._after_fork()
        line = self._lines.mine()
        return self._evaluated(calls, lambda commands: line.call(*commands))

    def _evaluated(self, calls: Sequence[ScriptCall], exchange: Exchange) -> list[Any]:
        """Return what scripts reply, errors among it; those that a server does not know are sent as a whole."""
        replies = list(exchange([self._packed(*s.by_sha, len(k), *k, *a) for s, k, a in calls]))
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
        if missing:
            again = [self._packed(*s.by_source, len(k), *k, *a) for s, k, a in (calls[i] for i in missing)]
            for i, reply in zip(missing, exchange(again), strict=True):
                replies[i] = reply
        for i, reply in enumerate(replies):
            if isinstance(reply, Exception):
                replies[i] = explained(reply, self.client, calls[i][0].name)
        return replies

    def probe(self) -> None:
        """See that the connections of `run_shared` are those they were; `generation` has grown otherwise."""
        if self._pid != os.getpid():
            self._after_fork()
        for line in self._lines.used() or [self._lines.mine()]:
            first_error_raised(line.call(*self._greetings()))

    def command(self, *args: Argument) -> Any:
        """Run one plain command."""
        return self.commands([args])[0]

    def commands(self, commands: Iterable[Sequence[Argument]]) -> list[Any]:
        """Run several plain commands in one round trip; raises the first error that one of them replied."""
        sent = [tuple(command) for command in commands]
        replies = self._exchange([self._packed(*command) for command in sent])
        for command, reply in zip(sent, replies, strict=True):
            if isinstance(reply, Exception):
                raise explained(reply, self.client, str(command[0]))
        return replies

    def everywhere(self, *args: Argument) -> list[Any]:
        """Run one plain command that names no key on every server of the store; one reply for each."""
        return [self.command(*args)]

    def scan(self, pattern: str, count: int = 1000) -> Iterator[list[bytes]]:
        """Yield the names of keys, page by page; `count`: about how many each call looks at."""
        cursor: Any = "0"
        while True:
            cursor, names = self.command("SCAN", cursor, "MATCH", pattern, "COUNT", count)
            yield names
            if cursor in (b"0", "0"):
                return

    def one_of_each(self, keys: Sequence[str]) -> list[str]:
        """Return one of the keys on each server of the store."""
        return list(keys[:1])

    def about(self, keys: Sequence[str], section: str) -> list[bytes]:
        """Return what the servers that have these keys tell of themselves."""
        return [self.command("INFO", section) for _ in keys]

    def confirmed(self, marker: str, enough: int, patience: float) -> int:
        """Write a key, and return how many replicas have that, and all that was written to its server before.

        Waits for `enough` of them, for so many seconds at most.
        """
        longest = min(patience, (self.client.connection_pool.connection_kwargs.get("socket_timeout") or 5.0) / 2)
        wait = self._packed("WAIT", enough, max(1, int(longest * 1000)))
        _, count = first_error_raised(self._exchange([self._packed("SET", marker, ""), self._beside(marker, wait)]))
        return int(count)

    # -- one connection ---------------------------------------------------------------------------------------

    def _packed(self, *command: Argument) -> bytes:
        """Return a command as it goes over the wire."""
        return _packed(*command)

    def _beside(self, key: str, packed: bytes) -> bytes:
        """Return a command without a key for the server that has one."""
        return packed

    def _greetings(self) -> list[bytes]:
        """Return what is sent to see that connections are there."""
        return [_packed("PING")]

    def _exchange(self, commands: Sequence[bytes]) -> list[Any]:
        return self._exchange_on(self._connection(), commands)

    def _exchange_shared(self, connection: AbstractConnection, commands: Sequence[bytes]) -> list[Any]:
        self._raise_if_closed(connection)
        return self._exchange_on(connection, commands)

    def _exchange_on(self, connection: AbstractConnection, commands: Sequence[bytes]) -> list[Any]:
        try:
            self._begin(connection, commands)
            return self._finish(connection, commands)
        except BaseException as error:
            self._give_up(connection, error)
            raise

    def _begin(self, connection: AbstractConnection, commands: Sequence[bytes], place: Any = None) -> None:
        """Send commands. `place`: which server of the store this is."""
        if self._renew_if_closed(connection):
            self.generation += 1
        self._prepare(connection, place)
        connection.send_packed_command((b"".join(commands),))

    def _finish(self, connection: AbstractConnection, commands: Sequence[bytes]) -> list[Any]:
        """Read the replies. A server that only reads now is left: another one is the master."""
        replies = [self._read(connection) for _ in commands]
        if any(isinstance(reply, redis.exceptions.ReadOnlyError) for reply in replies):
            connection.disconnect()
            self.failures += 1
            self.generation += 1
        return replies

    def _give_up(self, connection: AbstractConnection, error: BaseException) -> None:
        # A reply may still be on its way; nobody else shall read it as its own.
        connection.disconnect()
        if (peer := connection.__dict__.pop("relier_peer", None)) is not None:
            self._given_up.add(peer)
        self.failures += 1
        self.generation += self._counts_as_lost(peer is not None)
        if isinstance(error, redis.ConnectionError) and self.on_lost is not None:
            self.on_lost()

    def _counts_as_lost(self, connected: bool) -> bool:
        """Whether a failure makes another generation."""
        return True

    def _send(self, connection: AbstractConnection, commands: Sequence[bytes]) -> list[Any]:
        connection.send_packed_command((b"".join(commands),))
        return [self._read(connection) for _ in commands]

    def _prepare(self, connection: AbstractConnection, place: Any) -> None:
        """Connect, learn who the server is, and have it close what was given up."""
        if not connection.is_connected:
            connection.__dict__.pop("relier_peer", None)
            connection.connect()
            self._meet(connection, place)
        if self._given_up:
            given_up, (here, _) = set(self._given_up), connection.__dict__.get("relier_peer", (b"", 0))
            ours = [number for run_id, number in given_up if run_id == here]
            calls = [_packed("CLIENT", "KILL", "ID", number) for number in ours]
            if calls:  # Where this is forbidden, the window stays open.
                self._send(connection, calls)
            self._given_up -= self._out_of_reach(given_up, here)

    def _meet(self, connection: AbstractConnection, place: Any) -> None:
        """Learn who the server is. Raises `ConnectionError` for a replica where a master was asked for."""
        questions = [_packed("CLIENT", "ID"), _packed("INFO", "server")]
        if self._elected:
            questions.append(_packed("INFO", "replication"))
        number, about, *role = self._send(connection, questions)
        if any(isinstance(reply, bytes) and b"role:slave" in reply for reply in role):
            raise redis.ConnectionError("A replica answered; no master is at this address now.")
        if not isinstance(number, int) or not isinstance(about, bytes):
            return
        run_id = next(line for line in about.split() if line.startswith(b"run_id:"))
        connection.__dict__["relier_peer"] = (run_id, number)  # Numbers begin anew in another server.
        connection.__dict__["relier_place"] = place
        before = self._servers.get(place)
        self._servers[place] = run_id
        if before not in (None, run_id):
            self.generation += 1
            self._leave(lambda peer, _: peer == before)
            logger.warning("The store is another server now; it may lack the last writes.")

    def _leave(self, is_left: Callable[[bytes, Any], bool]) -> None:
        """Break connections to servers that others have replaced: whoever waits there would wait for its timeout.

        `is_left` gets a server's identity and its place. The socket is closed by the thread that uses it.
        """
        for connection in self._known_connections():
            peer, sock = connection.__dict__.get("relier_peer"), getattr(connection, "_sock", None)
            if peer is not None and sock is not None and is_left(peer[0], connection.__dict__.get("relier_place")):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _out_of_reach(self, given_up: set[tuple[bytes, int]], here: bytes) -> set[tuple[bytes, int]]:
        """Return what need not be looked after any more, once the server `here` was told: it is the only one."""
        return given_up

    def _raise_if_closed(self, connection: AbstractConnection) -> None:
        if self._renew_if_closed(connection):
            self.generation += 1
            raise redis.ConnectionError("The connection was closed while it was idle.")

    @staticmethod
    def _renew_if_closed(connection: AbstractConnection) -> bool:
        """Let an idle connection that the server closed connect again: nothing was sent, so nothing is unsure."""
        closed = False
        now, used = time.monotonic(), connection.__dict__.get("relier_used", 0.0)
        connection.__dict__["relier_used"] = now
        if connection.is_connected and used and now - used > IDLE:
            try:
                closed = connection.can_read(0)  # Nobody waits for a reply: whatever is there is its end.
            except (redis.ConnectionError, OSError):
                closed = True
            if closed:
                connection.disconnect()
        return closed

    @staticmethod
    def _read(connection: AbstractConnection) -> Any:
        try:
            return connection.read_response()
        except redis.ResponseError as error:
            return error

    def _connection(self) -> AbstractConnection:
        if self._pid != os.getpid():
            self._after_fork()
        connection: AbstractConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            self._local.connection = connection = self._new_connection()
        return connection

    def _new_connection(self) -> AbstractConnection:
        pool = self.client.connection_pool
        connection: AbstractConnection = pool.connection_class(**pool.connection_kwargs)
        self._know(connection)
        return connection

    def _know(self, connection: AbstractConnection) -> None:
        with self._knowing:
            self._connections.add(connection)

    def _known_connections(self) -> list[AbstractConnection]:
        with self._knowing:
            return list(self._connections)

    def _after_fork(self) -> None:
        """Begin anew in a forked child: it must not share its parent's sockets."""
        self._local, self._pid, self._connections = threading.local(), os.getpid(), weakref.WeakSet()
        self._knowing = threading.Lock()
        self._lines = Lines(self)
        self._given_up, self._servers = set(), {}

    def close(self) -> None:
        """Close every thread's connection; a later call opens a new one."""
        for connection in self._known_connections():
            connection.disconnect()


def first_error_raised(replies: Sequence[Any]) -> list[Any]:
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return list(replies)
