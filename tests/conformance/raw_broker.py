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


def put(fleet: Harness, message: Message[Any]) -> None:
    """Append a message to its queue, as it is."""
    where = url_of(fleet)
    if where.startswith("amqp"):
        with closing(_channel(where)) as channel:
            channel.basic_publish("", message.queue_name, message.encode())
    elif where.endswith(".sqlite"):
        with closing(sqlite3.connect(where, timeout=30)) as connection, connection:
            row = (message.queue_name, message.encode(), time.time())
            connection.execute("INSERT INTO messages (queue, body, visible_at) VALUES (?, ?, ?)", row)
    else:
        redis_id, key = str(uuid4()), f"dramatiq:{message.queue_name}"
        body = message.copy(options={"redis_message_id": redis_id}).encode()
        with closing(redis.Redis.from_url(where)) as client:
            client.hset(f"{key}.msgs", redis_id, body)
            client.rpush(key, redis_id)


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
