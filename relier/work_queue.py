"""The queue between a worker's consumers and its threads."""

from __future__ import annotations

from dataclasses import replace
from queue import PriorityQueue
from typing import Any

from relier.queues import is_lane

#: More nanoseconds than any machine runs: puts one class of items before another and keeps the order within.
AGES = 1 << 63


class RecoveryFirst(PriorityQueue[Any]):
    """Takes what came through a delay lane first among equal priorities.

    The store publishes to that lane what has waited once already: orphans, retries, delays that are due. In Dramatiq's
    own queue it would stand behind whatever the busy survivor of a crash prefetched: as many tasks as it runs.
    """

    def _put(self, item: Any) -> None:
        if is_lane(item.message.queue_name):
            item = replace(item, _queued_time=item._queued_time - AGES)
        super()._put(item)
