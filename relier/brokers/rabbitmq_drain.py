"""Takes messages out of RabbitMQ on request; what is to stay goes back to its place."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pika
import pika.exceptions

from relier import failpoints

if TYPE_CHECKING:
    from relier.brokers.generic import Judge

#: Messages that are judged together, and bytes of them: whoever judges may have to wait for a disk.
PIECE, PIECE_BYTES = 5_000, 64 * 2**20
#: How long (s) RabbitMQ waits for a sign of life: while messages are judged there is none.
HEARTBEAT = 60


def drain_rabbitmq(parameters: Sequence[Any], names: Iterable[str], judge: Judge) -> int:
    """Remove what `judge` says of what is ready in queues, by their names on the server.

    What a worker has fetched stays that worker's. What is kept is not available to workers until all was looked at, and
    is back in its place then, also when this process is killed. Returns how many messages were removed. Raises pika's
    errors.
    """
    connection = pika.BlockingConnection([_patient(each) for each in parameters])
    try:
        return sum(_drain_queue(connection, name, judge) for name in names)
    finally:
        if connection.is_open:
            connection.close()


def _patient(parameters: Any) -> Any:
    own = copy.copy(parameters)
    own.heartbeat = HEARTBEAT
    return own


def _drain_queue(connection: Any, name: str, judge: Judge) -> int:
    channel = connection.channel()
    try:
        ready = int(channel.queue_declare(name, passive=True).method.message_count)
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code == 404:
            return 0
        raise
    removed, piece, size = 0, [], 0
    for _ in range(ready):
        method, _, body = channel.basic_get(name)
        if method is None:
            break
        piece.append((method.delivery_tag, body))
        size += len(body)
        if len(piece) >= PIECE or size >= PIECE_BYTES:
            removed += _settle(channel, piece, judge)
            piece, size = [], 0
    removed += _settle(channel, piece, judge)
    channel.basic_nack(0, multiple=True, requeue=True)
    channel.close()
    return removed


def _settle(channel: Any, piece: list[tuple[int, bytes]], judge: Judge) -> int:
    """Acknowledge those of a piece that are to go."""
    verdicts = judge([body for _, body in piece]) if piece else []
    failpoints.hit("purge-judged")
    for (tag, _), go in zip(piece, verdicts, strict=True):
        if go:
            channel.basic_ack(tag)
    failpoints.hit("purge-removed")
    return sum(verdicts)
