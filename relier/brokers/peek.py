"""Reads what a Redis broker has, without taking anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: About how many keys or messages one call looks at.
PAGE = 500


def redis_messages(client: Any, namespace: str) -> Iterator[bytes]:
    """Yield every message of every queue, waiting or unacknowledged; dead-letter queues are left out.

    Queues are found by their keys: nobody may know a queue any more whose actors are gone.
    """
    prefix, suffix = f"{namespace}:", ".msgs"
    for key in client.scan_iter(match=f"{prefix}*{suffix}", count=PAGE):
        queue = key.decode("utf-8", "replace")[len(prefix) : -len(suffix)]
        if ":" in queue or queue.endswith(".XQ"):  # another namespace's, or Dramatiq's own dead letters
            continue
        for _, message in client.hscan_iter(key, count=PAGE):
            yield message
