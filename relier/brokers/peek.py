"""Reads what a Redis broker has, without taking anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from dramatiq import Message
from dramatiq.common import q_name
from dramatiq.errors import DecodeError

#: About how many keys or messages one call looks at.
PAGE = 500


def redis_messages(client: Any, namespace: str) -> Iterator[bytes]:
    """Yield every message of every queue, waiting or unacknowledged; dead-letter queues are left out.

    Queues are found by their keys: nobody may know a queue any more whose actors are gone.
    """
    for key, _ in _lanes(client, namespace):
        for _, message in client.hscan_iter(key, count=PAGE):
            yield message


def redis_queues(client: Any, namespace: str) -> set[str]:
    """Return the queues that have messages, waiting or unacknowledged."""
    return {q_name(lane) for _, lane in _lanes(client, namespace)}


def redis_oldest(client: Any, namespace: str, lanes: Iterable[str]) -> float | None:
    """Return when the message at the head of these queues was made, in seconds since the epoch; None without any."""
    found = []
    for lane in lanes:
        message_id = client.lindex(f"{namespace}:{lane}", 0)
        data = message_id and client.hget(f"{namespace}:{lane}.msgs", message_id)
        try:
            found += [Message.decode(data).message_timestamp / 1000] if data else []
        except (DecodeError, TypeError):
            continue  # A worker will find out.
    return min(found, default=None)


def _lanes(client: Any, namespace: str) -> Iterator[tuple[bytes, str]]:
    """Yield each queue and delay lane that has messages: the key of these, and its name."""
    prefix, suffix = f"{namespace}:", ".msgs"
    for key in client.scan_iter(match=f"{prefix}*{suffix}", count=PAGE):
        lane = key.decode("utf-8", "replace")[len(prefix) : -len(suffix)]
        if ":" not in lane and not lane.endswith(".XQ"):  # another namespace's, or Dramatiq's own dead letters
            yield key, lane
