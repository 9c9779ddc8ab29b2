"""Runs scripts on Redis: one connection a thread, no retries below us, the same call again when that is safe.

A connection that is given up while a call was on its way may still deliver that call, much later: the network holds it
back, and a claim of a task that has long ended would find no record and be granted. So whatever was given up is closed
at the server before anything else is sent to it.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import Any

import redis
from hiredis import pack_command
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from relier.store.permissions import explained
from relier.store.scripts import Script
from relier.store.shared_line import SharedLine

Argument = str | bytes | int | float

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


#: How many shared lines a process has at most: as many as Dramatiq has threads by default. Further threads share them.
LINES = 8


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

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        #: Called when a connection was lost, before the error is raised (the embedded server: bring it back).
        self.on_lost: Callable[[], object] | None = None
        #: Grows with each lost connection: while two readings are equal, it was one server, and no call was repeated.
        self.generation = 0
        self._local = threading.local()
        self._pid = os.getpid()
        self._connections: weakref.WeakSet[AbstractConnection] = weakref.WeakSet()
        self._lines = _Lines(self)
        #: Connections that may still deliver a call that was given up: server (its run id) and number there.
        self._given_up: set[tuple[bytes, int]] = set()

    def run(self, script: Script, keys: Sequence[str], args: Iterable[Argument]) -> Any:
        """Run one script and return its reply; loads it into the server's cache when it is missing."""
        return self.run_many([(script, keys, args)])[0]

    def run_many(self, calls: Sequence[ScriptCall], *, unbroken: bool = False) -> list[Any]:
        """Run several scripts in one round trip; raises the first error that one of them replied.

        `unbroken`: raise `ConnectionError` when this thread's connection is not the one used before.
        """
        if unbroken:
            self._raise_if_closed(self._connection())
        tails = [(len(keys), *keys, *args) for _, keys, args in calls]
        replies = self._exchange([_packed(*call[0].by_sha, *t) for call, t in zip(calls, tails, strict=True)])
        for i, reply in enumerate(replies):
            script = calls[i][0]
            if isinstance(reply, redis.exceptions.NoScriptError):
                replies[i] = self._exchange([_packed(*script.by_source, *tails[i])])[0]
            if isinstance(replies[i], Exception):
                raise explained(replies[i], self.client, script.name)
        return replies

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
        tails = [(len(keys), *keys, *args) for _, keys, args in calls]
        packed = [_packed(*call[0].by_sha, *t) for call, t in zip(calls, tails, strict=True)]
        line = self._lines.mine()
        replies = list(line.call(*packed))
        for i, reply in enumerate(replies):
            script = calls[i][0]
            if isinstance(reply, redis.exceptions.NoScriptError):
                (replies[i],) = line.call(_packed(*script.by_source, *tails[i]))
            if isinstance(replies[i], Exception):
                replies[i] = explained(replies[i], self.client, script.name)
        return replies

    def probe(self) -> None:
        """See that the connections of `run_shared` are those they were; `generation` has grown otherwise."""
        if self._pid != os.getpid():
            self._after_fork()
        for line in self._lines.used() or [self._lines.mine()]:
            line.call(_packed("PING"))

    def command(self, *args: Argument) -> Any:
        """Run one plain command."""
        return self.commands([args])[0]

    def commands(self, commands: Iterable[Sequence[Argument]]) -> list[Any]:
        """Run several plain commands in one round trip; raises the first error that one of them replied."""
        sent = [tuple(command) for command in commands]
        replies = self._exchange([_packed(*command) for command in sent])
        for command, reply in zip(sent, replies, strict=True):
            if isinstance(reply, Exception):
                raise explained(reply, self.client, str(command[0]))
        return replies

    def _exchange(self, commands: Sequence[bytes]) -> list[Any]:
        return self._exchange_on(self._connection(), commands)

    def _exchange_shared(self, connection: AbstractConnection, commands: Sequence[bytes]) -> list[Any]:
        self._raise_if_closed(connection)
        return self._exchange_on(connection, commands)

    def _exchange_on(self, connection: AbstractConnection, commands: Sequence[bytes]) -> list[Any]:
        if self._renew_if_closed(connection):
            self.generation += 1
        try:
            self._prepare(connection)
            return self._send(connection, commands)
        except BaseException as error:
            # A reply may still be on its way; nobody else shall read it as its own.
            connection.disconnect()
            if (peer := connection.__dict__.pop("relier_peer", None)) is not None:
                self._given_up.add(peer)
            self.generation += 1
            if isinstance(error, redis.ConnectionError) and self.on_lost is not None:
                self.on_lost()
            raise

    def _send(self, connection: AbstractConnection, commands: Sequence[bytes]) -> list[Any]:
        connection.send_packed_command((b"".join(commands),))
        return [self._read(connection) for _ in commands]

    def _prepare(self, connection: AbstractConnection) -> None:
        """Connect, learn who the server is, and have it close what was given up."""
        if not connection.is_connected:
            connection.__dict__.pop("relier_peer", None)
            connection.connect()
            number, about = self._send(connection, [_packed("CLIENT", "ID"), _packed("INFO", "server")])
            if isinstance(number, int) and isinstance(about, bytes):
                run_id = next(line for line in about.split() if line.startswith(b"run_id:"))
                connection.__dict__["relier_peer"] = (run_id, number)  # Numbers begin anew in another server.
        if self._given_up:
            given_up, (here, _) = set(self._given_up), connection.__dict__.get("relier_peer", (b"", 0))
            ours = [number for run_id, number in given_up if run_id == here]
            calls = [_packed("CLIENT", "KILL", "ID", number) for number in ours]
            if calls:  # Where this is forbidden, the window stays open.
                self._send(connection, calls)
            self._given_up -= given_up

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
        self._connections.add(connection)
        return connection

    def _after_fork(self) -> None:
        """Begin anew in a forked child: it must not share its parent's sockets."""
        self._local, self._pid, self._connections = threading.local(), os.getpid(), weakref.WeakSet()
        self._lines = _Lines(self)
        self._given_up = set()

    def close(self) -> None:
        """Close every thread's connection; a later call opens a new one."""
        for connection in list(self._connections):
            connection.disconnect()


class _Lines:
    """The lines that a process's threads share, each with a connection of its own.

    With a single one the store idles while the thread that sends next wakes up.
    """

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner
        self._lines: list[SharedLine] = []
        self._made = threading.Lock()
        self._threads = count()
        self._local = threading.local()

    def mine(self) -> SharedLine:
        """Return the calling thread's line, always the same one."""
        line: SharedLine | None = getattr(self._local, "line", None)
        if line is None:
            with self._made:
                number = next(self._threads) % LINES
                line = self._lines[number] if number < len(self._lines) else self._another()
                self._local.line = line
        return line

    def _another(self) -> SharedLine:
        """Open another line, to the server that the others lead to: nobody would notice that it is a new one."""
        line = SharedLine(partial(self._runner._exchange_shared, self._runner._new_connection()))
        if self._lines:
            line.call(_packed("PING"))
            self._lines[0].call(_packed("PING"))
        self._lines.append(line)
        return line

    def used(self) -> list[SharedLine]:
        return list(self._lines)
