"""Writes into a broker and takes out of it without Relier, as plain Dramatiq does, or somebody who should not."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import Any
from uuid import uuid4

import redis
from dramatiq import Message

from tests.integration.harness import Harness


def put(fleet: Harness, message: Message[Any], queue: str = "") -> None:
    """Append a message to its queue, or to another one, as it is."""
    redis_id = str(uuid4())
    if not url_of(fleet).startswith("amqp") and not url_of(fleet).endswith(".sqlite"):
        message = message.copy(options={"redis_message_id": redis_id})
    put_bytes(fleet, queue or message.queue_name, message.encode(), redis_id)


def put_bytes(fleet: Harness, queue: str, data: bytes, redis_id: str = "") -> None:
    """Append whatever it is to a queue."""
    where, redis_id = url_of(fleet), redis_id or str(uuid4())
    if where.startswith("amqp"):
        with closing(_channel(where)) as channel:
            channel.basic_publish("", queue, data)
    elif where.endswith(".sqlite"):
        with closing(sqlite3.connect(where, timeout=30)) as connection, connection:
            row = (queue, data, time.time())
            connection.execute("INSERT INTO messages (queue, body, visible_at) VALUES (?, ?, ?)", row)
    else:
        with closing(redis.Redis.from_url(where)) as client:
            client.hset(f"dramatiq:{queue}.msgs", redis_id, data)
            client.rpush(f"dramatiq:{queue}", redis_id)


def take(fleet: Harness, queue: str = "default") -> Message[Any]:
    """Remove the oldest message that waits in a queue, and return it."""
    where = url_of(fleet)
    if where.startswith("amqp"):
        with closing(_channel(where)) as channel:
            _, _, body = channel.basic_get(queue, auto_ack=True)
            return Message.decode(body)
    if where.endswith(".sqlite"):
        with closing(sqlite3.connect(where, timeout=30)) as connection, connection:
            found = connection.execute("SELECT id, body FROM messages WHERE queue = ? ORDER BY id", (queue,)).fetchone()
            connection.execute("DELETE FROM messages WHERE id = ?", (found[0],))
            return Message.decode(found[1])
    with closing(redis.Redis.from_url(where)) as client:
        redis_id: Any = client.lpop(f"dramatiq:{queue}")
        data: Any = client.hget(f"dramatiq:{queue}.msgs", redis_id)
        client.hdel(f"dramatiq:{queue}.msgs", redis_id)
        return Message.decode(data)


def url_of(fleet: Harness) -> str:
    """Return where a fleet's broker is: a URL, or the path of a file."""
    return str(getattr(fleet, "where", None) or fleet.options.get("broker_url") or fleet.options["redis_url"])


def _channel(url: str) -> Any:
    from pika import BlockingConnection, URLParameters

    return _Channel(BlockingConnection(URLParameters(url)))


class _Channel:
    """A channel on a connection of its own, which closes with it."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._channel = connection.channel()
        self._channel.confirm_delivery()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def close(self) -> None:
        self._connection.close()
