"""The bytes that publish messages, in one piece: made from what pika makes once for each queue, and sent at once.

pika would buffer each frame, wait until the socket is writable, and send them one by one: four more calls of the kernel
for each message, and as many packets.
"""

from __future__ import annotations

import struct
from typing import Any

import pika
from pika import frame, spec
from pika.adapters.utils.io_services_utils import _AsyncPlaintextTransport

PERSISTENT = pika.BasicProperties(delivery_mode=2)

#: Where the size of the body is in a header frame: behind type, channel, size, class and weight.
_SIZE = slice(11, 19)
_END = bytes([spec.FRAME_END])
#: More bytes than this are left to pika, which sends what is left of a piece without copying all of it each time.
ONE_PIECE = 262_144
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
        self._taken: list[bytes] = []

    def publish(self, queue: str, body: bytes) -> None:
        """Take a message, which `flush` sends. Raises what pika raises when the channel is closed."""
        if len(body) > self._connection._body_max_length or not body or not self._channel.is_open:
            self.flush()
            self._channel.basic_publish("", queue, body, PERSISTENT, mandatory=True)
            return
        method = self._methods.get(queue) or self._method(queue)
        before, behind = self._header
        size = struct.pack(">Q", len(body))
        self._taken.append(b"".join((method, before, size, behind, self._body, size[4:], body, _END)))

    def flush(self) -> None:
        """Send what was taken; pika sends what the socket does not take now."""
        taken, self._taken = self._taken, []
        if sum(map(len, taken)) > ONE_PIECE:
            self._connection._output_marshaled_frames(taken)
        elif taken:
            data = b"".join(taken)
            rest = data[self._send(data) :]
            if rest:
                self._connection._output_marshaled_frames([rest])

    def _send(self, data: bytes) -> int:
        """Send what the socket takes now, and return how much. Not over TLS, and nothing past what pika has to send."""
        transport: Any = getattr(self._connection, "_transport", None)
        if type(transport) is not _AsyncPlaintextTransport or transport._tx_buffers or transport._sock is None:
            return 0
        try:
            sent: int = transport._sock.send(data)
        except OSError:  # The buffer is full. Of a broken connection pika finds out by itself.
            return 0
        self._connection.bytes_sent += sent
        return sent

    def _method(self, queue: str) -> bytes:
        if len(self._methods) >= KEPT:
            self._methods.clear()
        publish = spec.Basic.Publish(exchange="", routing_key=queue, mandatory=True)
        marshaled: bytes = frame.Method(self._channel.channel_number, publish).marshal()
        self._methods[queue] = marshaled
        return marshaled
