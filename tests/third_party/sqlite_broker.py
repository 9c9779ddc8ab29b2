"""A broker that Relier does not know, written on Dramatiq's base classes alone: messages are rows of an SQLite file.

It keeps delays itself, has no delay lanes, and delivers a message again when nobody acknowledged it in time, whether
its worker died or is only slow.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from dramatiq import Broker, Message
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.errors import QueueNotFound
from dramatiq.middleware import Middleware

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue TEXT NOT NULL,
    body BLOB NOT NULL,
    visible_at REAL NOT NULL,
    delivery INTEGER NOT NULL DEFAULT 0,
    rejected INTEGER NOT NULL DEFAULT 0
)
"""
_FETCH = """
UPDATE messages SET visible_at = ?, delivery = delivery + 1
WHERE id IN (SELECT id FROM messages WHERE queue = ? AND NOT rejected AND visible_at <= ? ORDER BY id LIMIT ?)
RETURNING id, delivery, body
"""

#: Pause (s) between two looks into an empty queue.
PAUSE = 0.05


class SqliteBroker(Broker):
    """A broker on one file.

    Parameters:
      path: the file.
      visibility: seconds after which an unacknowledged message is delivered again.
      middleware: in place of Dramatiq's default ones.
    """

    def __init__(self, path: str, *, visibility: float = 2.0, middleware: list[Middleware] | None = None) -> None:
        super().__init__(middleware)
        self.path = path
        self.visibility = visibility
        with self.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute(_SCHEMA)

    @contextmanager
    def cursor(self) -> Iterator[sqlite3.Cursor]:
        connection = sqlite3.connect(self.path, timeout=30)
        try:
            with connection:
                yield connection.cursor()
        finally:
            connection.close()

    def declare_queue(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        self.emit_before("enqueue", message, delay)
        with self.cursor() as cursor:
            visible_at = time.time() + (delay or 0) / 1000
            row = (message.queue_name, message.encode(), visible_at)
            cursor.execute("INSERT INTO messages (queue, body, visible_at) VALUES (?, ?, ?)", row)
        self.emit_after("enqueue", message, delay)
        return message

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)  # type: ignore[no-untyped-call]
        return _SqliteConsumer(self, queue_name, prefetch, timeout)

    def flush(self, queue_name: str) -> None:
        with self.cursor() as cursor:
            cursor.execute("DELETE FROM messages WHERE queue = ?", (queue_name,))

    def flush_all(self) -> None:
        for queue_name in self.queues:
            self.flush(queue_name)

    def count(self, queue_name: str) -> int:
        """Return how many messages of a queue wait or are unacknowledged."""
        with self.cursor() as cursor:
            found = cursor.execute("SELECT count(*) FROM messages WHERE queue = ? AND NOT rejected", (queue_name,))
            return int(found.fetchone()[0])


class _Delivered(MessageProxy):
    def __init__(self, message: Message[Any], row: int, delivery: int) -> None:
        super().__init__(message)
        self.row = row
        self.delivery = delivery


class _SqliteConsumer(Consumer):
    def __init__(self, broker: SqliteBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self.broker = broker
        self.queue_name = queue_name
        self.prefetch = prefetch
        self.pause = min(timeout / 1000, PAUSE)
        self.fetched: deque[tuple[int, int, bytes]] = deque()
        self.held = 0

    def __next__(self) -> MessageProxy | None:
        if not self.fetched and not self._fetch():
            time.sleep(self.pause)
            return None
        row, delivery, body = self.fetched.popleft()
        message = _Delivered(Message.decode(body), row, delivery)
        self.held += 1
        return message

    def _fetch(self) -> bool:
        room = self.prefetch - self.held
        now = time.time()
        if room > 0:
            with self.broker.cursor() as cursor:
                rows = cursor.execute(_FETCH, (now + self.broker.visibility, self.queue_name, now, room)).fetchall()
            self.fetched.extend(sorted(rows))
        return bool(self.fetched)

    def ack(self, message: Any) -> None:
        self._close("DELETE FROM messages WHERE id = ? AND delivery = ?", message)

    def nack(self, message: Any) -> None:
        self._close("UPDATE messages SET rejected = 1 WHERE id = ? AND delivery = ?", message)

    def _close(self, statement: str, message: Any) -> None:
        self.held -= 1
        with self.broker.cursor() as cursor:
            cursor.execute(statement, (message.row, message.delivery))

    def requeue(self, messages: Iterable[Any]) -> None:
        self._show((message.row, message.delivery) for message in messages)

    def close(self) -> None:
        self._show((row, delivery) for row, delivery, _ in self.fetched)
        self.fetched.clear()

    def _show(self, rows: Iterable[tuple[int, int]]) -> None:
        with self.broker.cursor() as cursor:
            cursor.executemany("UPDATE messages SET visible_at = 0 WHERE id = ? AND delivery = ?", list(rows))
