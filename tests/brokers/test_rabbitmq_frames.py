"""The bytes that publish a message are those that pika would send."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pika import frame, spec
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport

from relier.brokers.rabbitmq_frames import PERSISTENT, Frames

LIMIT = 1000


class Wire:
    """Stands in for pika's connection and channel: keeps what they send."""

    def __init__(self) -> None:
        self.sent = b""
        self.published: list[tuple[Any, ...]] = []
        self.connection = SimpleNamespace(_body_max_length=LIMIT, _output_marshaled_frames=self._output)
        self.channel_number = 7
        self.is_open = True

    def _output(self, frames: list[bytes]) -> None:
        self.sent += b"".join(frames)

    def basic_publish(self, *args: Any, **options: Any) -> None:
        self.published.append((*args, options))


@pytest.mark.parametrize("queue", ["default", "käse.DQ"])
@pytest.mark.parametrize("size", [1, 255, 256, LIMIT])
def test_the_frames_are_those_of_pika(queue: str, size: int) -> None:
    wire, body = Wire(), bytes(i % 256 for i in range(size))
    frames = Frames(wire)
    frames.publish(queue, body)
    frames.publish(queue, body)
    assert wire.sent == b""
    frames.flush()
    method = spec.Basic.Publish(exchange="", routing_key=queue, mandatory=True)
    expected = (
        frame.Method(7, method).marshal() + frame.Header(7, size, PERSISTENT).marshal() + frame.Body(7, body).marshal()
    )
    assert wire.sent == 2 * expected
    assert PERSISTENT.delivery_mode == 2


@pytest.mark.parametrize(("body", "is_open"), [(b"x" * (LIMIT + 1), True), (b"", True), (b"x", False)])
def test_what_is_not_ordinary_is_left_to_pika(body: bytes, is_open: bool) -> None:
    wire = Wire()
    wire.is_open = is_open
    Frames(wire).publish("default", body)
    assert (wire.sent, wire.published) == (b"", [("", "default", body, PERSISTENT, {"mandatory": True})])


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def plugged(wire: Wire, sock: socket.socket, buffered: bytes = b"") -> None:
    """Give the connection pika's own transport, over a socket of the test."""
    transport = object.__new__(_AsyncPlaintextTransport)
    transport._sock, transport._tx_buffers = sock, deque([buffered] if buffered else [])
    wire.connection._transport, wire.connection.bytes_sent = transport, 0


def expected_of(count: int, body: bytes) -> bytes:
    wire = Wire()
    frames = Frames(wire)
    for _ in range(count):
        frames.publish("default", body)
    frames.flush()
    return wire.sent


def test_messages_are_sent_at_once_in_one_piece(sockets: tuple[socket.socket, socket.socket]) -> None:
    wire, (ours, theirs) = Wire(), sockets
    plugged(wire, ours)
    frames = Frames(wire)
    for _ in range(3):
        frames.publish("default", b"hello")
    frames.flush()
    frames.flush()
    assert (theirs.recv(10_000), wire.sent) == (expected_of(3, b"hello"), b"")


def test_nothing_overtakes_what_pika_still_has_to_send(sockets: tuple[socket.socket, socket.socket]) -> None:
    wire, (ours, _) = Wire(), sockets
    plugged(wire, ours, buffered=b"earlier")
    frames = Frames(wire)
    frames.publish("default", b"hello")
    frames.flush()
    assert wire.sent == expected_of(1, b"hello")


def test_what_the_socket_does_not_take_is_left_to_pika(sockets: tuple[socket.socket, socket.socket]) -> None:
    wire, (ours, theirs) = Wire(), sockets
    plugged(wire, ours)
    frames, body, pieces = Frames(wire), b"x" * LIMIT, 0
    while not wire.sent:
        frames.publish("default", body)
        frames.flush()
        pieces += 1
    ours.close()
    received = b"".join(iter(lambda: theirs.recv(1_000_000), b""))
    assert received + wire.sent == expected_of(pieces, body)


def test_a_broken_connection_is_left_to_pika(sockets: tuple[socket.socket, socket.socket]) -> None:
    wire, (ours, theirs) = Wire(), sockets
    plugged(wire, ours)
    theirs.close()
    frames = Frames(wire)
    frames.publish("default", b"hello")
    frames.flush()
    assert wire.sent == expected_of(1, b"hello")
