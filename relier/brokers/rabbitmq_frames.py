"""The bytes that publish a message: its three frames in one piece, made from what pika makes once for each queue."""

from __future__ import annotations

import struct
from typing import Any

import pika
from pika import frame, spec

PERSISTENT = pika.BasicProperties(delivery_mode=2)

#: Where the size of the body is in a header frame: behind type, channel, size, class and weight.
_SIZE = slice(11, 19)
_END = bytes([spec.FRAME_END])
#: Most queues whose frames are kept.
KEPT = 1000


class Frames:
    """Publishes persistent, mandatory messages to queues, on one channel.

    Parameters:
      channel: an open channel.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._connection = channel.connection
        header: bytes = frame.Header(channel.channel_number, 0, PERSISTENT).marshal()
        self._header = header[: _SIZE.start], header[_SIZE.stop :]
        self._body = struct.pack(">BH", spec.FRAME_BODY, channel.channel_number)
        self._methods: dict[str, bytes] = {}

    def publish(self, queue: str, body: bytes) -> None:
        """Hand a message to the connection. Raises what pika raises when the channel is closed."""
        if len(body) > self._connection._body_max_length or not body or not self._channel.is_open:
            self._channel.basic_publish("", queue, body, PERSISTENT, mandatory=True)
            return
        method = self._methods.get(queue) or self._method(queue)
        before, behind = self._header
        size = struct.pack(">Q", len(body))
        head = b"".join((method, before, size, behind, self._body, size[4:]))
        self._connection._output_marshaled_frames([b"".join((head, body, _END))])

    def _method(self, queue: str) -> bytes:
        if len(self._methods) >= KEPT:
            self._methods.clear()
        publish = spec.Basic.Publish(exchange="", routing_key=queue, mandatory=True)
        marshaled: bytes = frame.Method(self._channel.channel_number, publish).marshal()
        self._methods[queue] = marshaled
        return marshaled
