"""A TCP proxy that does to connections what networks do: cut, refuse, delay, half-open, drop a reply after the fact."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

T = TypeVar("T")

#: The two directions of a connection.
TO_SERVER, TO_CLIENT = "to server", "to client"
BOTH = (TO_SERVER, TO_CLIENT)

_CHUNK = 65_536


@dataclass
class _Dropping:
    """A reply to be dropped: the first that has `reply` in it, after a request that has `request` in it."""

    request: bytes
    reply: bytes
    times: int


def _open_gates() -> dict[str, asyncio.Event]:
    gates = {direction: asyncio.Event() for direction in BOTH}
    for gate in gates.values():
        gate.set()
    return gates


class _Connection:
    """One connection through the proxy: two pumps, and both ends to hurt."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.ends = {TO_CLIENT: client, TO_SERVER: server}
        self.gates = proxy.gates
        self.armed: _Dropping | None = None

    async def pump(self, reader: asyncio.StreamReader, direction: str) -> None:
        """Forward in one direction. What a half-open link holds back arrives when it heals, as TCP would resend it."""
        proxy, writer = self.proxy, self.ends[direction]
        try:
            while data := await reader.read(_CHUNK):
                if proxy.latency:
                    proxy.seen["delayed"] += 1
                    await asyncio.sleep(proxy.latency)
                if not self.gates[direction].is_set():
                    proxy.seen[f"held {direction}"] += 1
                    await self.gates[direction].wait()
                if self._drops(data, direction):
                    self.reset()
                    return
                writer.write(data)
                await writer.drain()
            await self.gates[direction].wait()
            writer.write_eof()
        except OSError:
            await self.gates[direction].wait()
            self.reset()

    def _drops(self, data: bytes, direction: str) -> bool:
        dropping = self.proxy.dropping
        if direction == TO_SERVER and dropping is not None and dropping.request in data:
            self.armed = dropping
        elif direction == TO_CLIENT and self.armed is not None and self.armed.reply in data:
            armed, self.armed = self.armed, None
            if armed.times > 0:
                armed.times -= 1
                self.proxy.seen["replies dropped"] += 1
                return True
        return False

    def reset(self) -> None:
        for end in self.ends.values():
            end.transport.abort()


class Proxy:
    """Stands between clients and one server, on a port of its own. Every method may be called from any thread.

    Parameters:
      url: of the server: `redis://`, `unix://` or `amqp://`.

    `seen` counts what really happened to connections: `connected`, `cut`, `refused`, `delayed`, `held to server`,
    `held to client`, `replies dropped`.
    """

    def __init__(self, url: str) -> None:
        self.seen: Counter[str] = Counter()
        #: Those of connections made now, and all that were shut and not opened yet.
        self.gates: dict[str, asyncio.Event] = {}
        self._shut: list[asyncio.Event] = []
        self.latency = 0.0
        self.dropping: _Dropping | None = None
        self._target = urlsplit(url)
        self._refuses = False
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    @property
    def url(self) -> str:
        """The server's URL, by way of this proxy."""
        target = self._target
        if target.scheme == "unix":
            return f"redis://127.0.0.1:{self.port}/0"
        user, at, _ = target.netloc.rpartition("@")
        return urlunsplit(target._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    # -- faults -------------------------------------------------------------------------------------------------

    def cut(self) -> int:
        """Reset every connection; returns how many. New ones are let through."""
        return self._do(self._cut)

    def refuse(self) -> None:
        """Reset every connection, and each new one, until healed."""
        self._do(self._refuse)

    def delay(self, seconds: float) -> None:
        """Delay each piece of data, in both directions."""
        self.latency = seconds

    def half_open(self, *directions: str, new: bool = True) -> None:
        """Let nothing through in these directions until healed. Nobody is told.

        `new`: whether new connections shall be as mute as those that there are.
        """
        self._do(lambda: self._half_open(directions, new))

    def drop_reply(self, request: bytes = b"", reply: bytes = b"", times: int = 1) -> None:
        """Drop the reply to a request that the server has carried out, and reset that connection."""
        self.dropping = _Dropping(request, reply, times)

    def heal(self) -> None:
        """End every fault. What was held back arrives now."""
        self._do(self._heal)

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._connections)

    def _cut(self) -> int:
        cut = [connection for connection in self._connections if not connection.ends[TO_CLIENT].is_closing()]
        for connection in cut:
            connection.reset()
        self.seen["cut"] += len(cut)
        return len(cut)

    def _refuse(self) -> None:
        self._refuses = True
        self._cut()

    def _half_open(self, directions: Sequence[str], new: bool) -> None:
        for direction in directions:
            self.gates[direction].clear()
            self._shut.append(self.gates[direction])
        if not new:
            self.gates = _open_gates()

    def _heal(self) -> None:
        self._refuses, self.latency, self.dropping = False, 0.0, None
        for gate in self._shut:
            gate.set()
        self._shut.clear()

    # -- the loop -----------------------------------------------------------------------------------------------

    async def _listen(self) -> int:
        self.gates = _open_gates()
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _accepted(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, client)
        except asyncio.CancelledError:  # The proxy is closed; asyncio would complain about a task that says so.
            client.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._refuses:
            self.seen["refused"] += 1
            client.transport.abort()
            return
        try:
            from_server, server = await self._connect()
        except OSError:
            client.transport.abort()
            return
        self.seen["connected"] += 1
        connection = _Connection(self, client, server)
        self._connections.add(connection)
        try:
            await asyncio.gather(connection.pump(reader, TO_SERVER), connection.pump(from_server, TO_CLIENT))
        except asyncio.CancelledError:
            connection.reset()
        finally:
            self._connections.discard(connection)
            for end in connection.ends.values():
                end.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._target.scheme == "unix":
            return await asyncio.open_unix_connection(self._target.path)
        return await asyncio.open_connection(self._target.hostname, self._target.port)

    def _do(self, what: Callable[[], T]) -> T:
        async def on_loop() -> T:
            return what()

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(10)

    def close(self) -> None:
        """Reset everything and stop listening."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._refuse()
        self._server.close()
        mine = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not mine]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # Transports close their sockets in a step of their own.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self.close()
