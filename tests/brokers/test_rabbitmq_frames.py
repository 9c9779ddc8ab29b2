"""The bytes that publish a message are those that pika would send."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pika import frame, spec

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
