"""Connections to RabbitMQ: how the settings describe them, and a thread that drives one."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import pika
import pika.exceptions
from dramatiq.errors import ConnectionClosed
from pika.adapters.utils.connection_workflow import AMQPConnectorException, AMQPConnectorStackTimeout

from relier.brokers.rabbitmq_loop import SharedLoop
from relier.errors import RelierConfigError
from relier.settings import Settings
from relier.urls import safe_url

logger = logging.getLogger(__name__)

#: Longest wait (s) for a connection: TCP, TLS and AMQP.
CONNECT_TIMEOUT = 5.0
#: Longest wait (s) for the answer to a request.
ANSWER_TIMEOUT = 10.0
#: A connection for questions is closed when nobody has asked for this long (s).
IDLE = 1.0

#: What pika raises when a connection or a channel was lost.
LOST: tuple[type[Exception], ...] = (pika.exceptions.AMQPError, AMQPConnectorException, OSError)

Parameters: TypeAlias = pika.connection.Parameters


def parameters_of(url: str, settings: Settings, purpose: str) -> list[Parameters]:
    """Return how to reach each server of a URL (several are separated by `;`).

    A third of the heartbeat TTL is the AMQP heartbeat, so that RabbitMQ has returned a frozen worker's messages when
    the fleet declares it dead; `?heartbeat=` in the URL wins. Raises `RelierConfigError`, which shows no password.
    """
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # It logs each loss several times; ours say it once.
    try:
        return [_parameters(part, settings, purpose) for part in url.split(";")]
    except Exception:
        problem = "an option behind the ? is unknown to pika or has a bad value"
        raise RelierConfigError(f"RELIER_BROKER_URL={safe_url(url)!r}: {problem}.") from None


def _parameters(url: str, settings: Settings, purpose: str) -> Parameters:
    parameters = pika.URLParameters(url)
    if "heartbeat=" not in url:
        parameters.heartbeat = max(1, round(settings.heartbeat_ttl / 3))
    parameters.socket_timeout = CONNECT_TIMEOUT
    parameters.stack_timeout = CONNECT_TIMEOUT
    name = f"relier {purpose} {socket.gethostname()}:{os.getpid()}"
    parameters.client_properties = {"connection_name": name, "product": "relier"}
    return parameters


def describe(error: BaseException) -> str:
    """Return in one line why a connection or channel ended; never holds a secret."""
    for _ in range(5):  # pika wraps the cause several times.
        inner = getattr(error, "exception", None) or [None, *(getattr(error, "exceptions", None) or error.args)][-1]
        if not isinstance(inner, BaseException):
            break
        error = inner
    if isinstance(error, pika.exceptions.ConnectionClosed | pika.exceptions.ChannelClosed):
        return f"{error.reply_text} ({error.reply_code})"
    if isinstance(error, AMQPConnectorStackTimeout):
        return "the server takes the connection, but does not answer"
    text = " ".join(str(part) for part in error.args if isinstance(part, str | int))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def closed(error: BaseException | str) -> ConnectionClosed:
    """Return Dramatiq's error for a lost connection."""
    text = error if isinstance(error, str) else describe(error)
    return ConnectionClosed(f"RabbitMQ: {text}")  # type: ignore[no-untyped-call]


class Link:
    """One connection, driven by a thread of its own. Connects on demand; a lost one is not renewed by itself.

    Everything but `call`, `call_and_drive` and `close` belongs to whoever drives.

    Parameters:
      parameters: how to reach each server; tried in turn.
      on_up: called with each new connection.
      on_down: called when a connection was lost or could not be made.
      busy: whether somebody waits for an answer; else callers may drive.
    """

    def __init__(
        self,
        parameters: list[Parameters],
        on_up: Callable[[pika.SelectConnection], None],
        on_down: Callable[[BaseException], None],
        busy: Callable[[], bool] = lambda: True,
    ) -> None:
        self._parameters = parameters
        self._busy = busy
        self._on_up = on_up
        self._on_down = on_down
        self._loop: SharedLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._connecting = False
        self._closing = False
        self.connection: Any = None
        _opened.add(self)

    # -- from any thread ----------------------------------------------------------------------------------------

    def call(self, function: Callable[[], object]) -> None:
        """Have the thread call a function, soon and in order."""
        self._started().call(function)

    def call_and_drive(self, function: Callable[[], object], over: Callable[[], bool], end: float) -> bool:
        """Call a function at once, and drive until all is over, or until `end` of the monotonic clock.

        False: this thread must not, use `call`. True says nothing about the outcome: somebody else may be driving.
        """
        loop = self._loop
        if loop is None or self._thread is None or not loop.lets_drive:
            return False
        loop.run_and_drive(function, over, end)
        return True

    def _started(self) -> SharedLoop:
        if self._thread is None:
            self._start()
        assert self._loop is not None
        return self._loop

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._closing, self._connecting, self.connection = False, False, None
                self._loop = SharedLoop(self._busy, self._failed)
                self._thread = threading.Thread(target=self._loop.drive, name="relier-rabbitmq", daemon=True)
                self._thread.start()

    def close(self, timeout: float = 2.0) -> None:
        """Close the connection and end the thread; a later call begins anew."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        self._closing = True
        self.call(self._close)
        thread.join(timeout)
        self._thread = None

    # -- on the thread that drives ------------------------------------------------------------------------------

    def demand(self) -> None:
        """Connect, unless there is a connection or one is being made."""
        if self.connection is not None or self._connecting or self._closing:
            return
        self._connecting = True
        try:
            pika.SelectConnection.create_connection(self._parameters, self._connected, self._inner)
        except Exception as error:
            self._lost(error)

    def later(self, seconds: float, function: Callable[[], object]) -> None:
        """Call a function after some time."""
        self._inner.call_later(seconds, function)

    def drop(self, error: BaseException) -> None:
        """Give the connection up."""
        connection, self.connection = self.connection, None
        if connection is not None:
            try:
                connection._terminate_stream(error)
            except Exception:
                logger.debug("A connection could not be ended.", exc_info=True)
        self._lost(error)

    @property
    def _inner(self) -> Any:
        assert self._loop is not None
        return self._loop.inner

    def _failed(self, error: Exception) -> None:
        """Give up a connection whose callbacks raised what pika did not expect."""
        with suppress(MemoryError):
            logger.error("The connection to RabbitMQ failed; a new one is made.", exc_info=error)
        with suppress(MemoryError):
            if self._closing:
                self._inner.stop()
            else:
                self.drop(error)

    def _connected(self, result: Any) -> None:
        if isinstance(result, BaseException):
            self._lost(result)
            return
        if self._closing or self.connection is not None:
            result.close()
            if self._closing:
                self._inner.stop()
            return
        self._connecting, self.connection = False, result
        result.add_on_close_callback(self._closed)
        self._on_up(result)

    def _closed(self, connection: Any, error: BaseException) -> None:
        if connection is self.connection:
            self._lost(error)

    def _lost(self, error: BaseException) -> None:
        self._connecting, self.connection = False, None
        self._on_down(error)
        if self._closing:
            self._inner.stop()

    def _close(self) -> None:
        if self.connection is None:
            self._inner.stop()
            return
        self._inner.call_later(1.0, self._inner.stop)
        self.connection.close()

    def forget(self) -> None:
        """Close a forked child's copy of the socket: the parent's death must show, and the child needs its own."""
        sock = _socket_of(self.connection)
        if sock is not None and sock.fileno() >= 0:
            os.close(sock.detach())
        self._thread, self._loop, self.connection, self._connecting = None, None, None, False
        self._starting = threading.Lock()


def _socket_of(connection: Any) -> socket.socket | None:
    transport = getattr(connection, "_transport", None) or getattr(
        getattr(connection, "_impl", None), "_transport", None
    )
    found: socket.socket | None = getattr(transport, "_sock", None)
    return found


class Inquiries:
    """Short questions over one connection of their own, which is never blocked by what is published.

    Parameters:
      parameters: how to reach each server.
    """

    def __init__(self, parameters: list[Parameters]) -> None:
        self._parameters = parameters
        self._lock = threading.Lock()
        self.connection: Any = None
        self._used = 0.0
        #: Closes the connection when nobody asks, since nobody answers RabbitMQ's heartbeats then, or when it hangs.
        self._closer: threading.Thread | None = None
        _opened.add(self)

    def ask(self, question: Callable[[Any], Any]) -> Any:
        """Return what the question answers to a fresh channel.

        Raises Dramatiq's `ConnectionClosed`, and pika's `ChannelClosed` when the server refuses.
        """
        with self._lock:
            for attempt in (1, 2):
                was_open = self.connection is not None
                try:
                    return self._ask(question)
                except pika.exceptions.ChannelClosed:
                    raise
                except LOST as error:
                    self._drop()
                    if attempt == 2 or not was_open:  # An idle connection may have been closed long ago.
                        raise closed(error) from None
        raise AssertionError("unreachable")

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        self._used = time.monotonic()
        if self.connection is None:
            self.connection = pika.BlockingConnection(self._parameters)
        if self._closer is None:
            self._closer = threading.Thread(target=self._close_when_idle, name="relier-rabbitmq-idle", daemon=True)
            self._closer.start()
        channel = self.connection.channel()
        answer = question(channel)
        channel.close()
        return answer

    def _close_when_idle(self) -> None:
        while True:
            time.sleep(IDLE)
            if self._lock.acquire(blocking=False):
                try:
                    if time.monotonic() - self._used > IDLE:
                        self._closer = None
                        self._drop()
                        return
                finally:
                    self._lock.release()
            elif time.monotonic() - self._used > ANSWER_TIMEOUT:
                self._interrupt()

    def _interrupt(self) -> None:
        """End the wait of whoever asks: a server that hangs is noticed by the heartbeat much later."""
        sock = _socket_of(self.connection)
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _drop(self) -> None:
        connection, self.connection = self.connection, None
        try:
            if connection is not None:
                connection.close()
        except LOST:
            pass

    def close(self) -> None:
        """Close the connection; a later question opens another."""
        with self._lock:
            self._drop()

    def forget(self) -> None:
        """Close a forked child's copy of the socket."""
        sock = _socket_of(self.connection)
        if sock is not None and sock.fileno() >= 0:
            os.close(sock.detach())
        self.connection, self._closer = None, None
        self._lock = threading.Lock()


_opened: weakref.WeakSet[Any] = weakref.WeakSet()


def _in_child() -> None:
    for opened in list(_opened):
        opened.forget()


os.register_at_fork(after_in_child=_in_child)
