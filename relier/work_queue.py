"""The queue between a worker's consumers and its threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from heapq import heapify
from queue import Empty, PriorityQueue
from typing import TYPE_CHECKING, Any

from relier.queues import is_lane

if TYPE_CHECKING:
    from relier.deferred import DeferredCommits

#: More nanoseconds than any machine runs: puts one class of items before another and keeps the order within.
AGES = 1 << 63
#: How long (s) a thread waits for work where none will come: it then looks whether it is to end.
CLOSED_WAIT = 0.05
#: How often (s) `join` looks.
LOOK = 0.01


class RecoveryFirst(PriorityQueue[Any]):
    """What a thread takes from it next; a thread that finds nothing first sees to the commit that it has put aside.

    Takes what came through a delay lane first among equal priorities.

    The store publishes to that lane what has waited once already: orphans, retries, delays that are due. In Dramatiq's
    own queue it would stand behind whatever the busy survivor of a crash prefetched: as many tasks as it runs.
    """

    def __init__(self, deferred: DeferredCommits) -> None:
        super().__init__()
        self._deferred = deferred
        self._elsewhere: Callable[[Any], None] | None = None

    def _put(self, item: Any) -> None:
        if is_lane(item.message.queue_name):
            item = replace(item, _queued_time=item._queued_time - AGES)
        super()._put(item)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        if self._elsewhere is not None:
            self._empty(self._elsewhere)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if self._deferred.owes():
            try:
                return super().get(block=False)
            except Empty:
                self._deferred.flush()
        closed = self._elsewhere is not None and timeout is not None
        return super().get(block, min(timeout, CLOSED_WAIT) if closed and timeout is not None else timeout)

    def join(self) -> None:
        """Wait until everything that was taken has ended and is committed."""
        super().join()
        while self._deferred:
            time.sleep(LOOK)

    def turn_away(self, elsewhere: Callable[[Any], None]) -> None:
        """Give every message that waits here, and every one that comes from now on, to `elsewhere`: the last first."""
        self._elsewhere = elsewhere
        self._empty(elsewhere)

    def take_out(self, queue_name: str) -> list[Any]:
        """Take away the messages of a queue or lane that no thread has begun; returns them in the order they came."""
        if not self.queue:
            return []
        with self.mutex:
            out = [item for item in self.queue if item.message.queue_name == queue_name]
            self.queue[:] = [item for item in self.queue if item.message.queue_name != queue_name]
            heapify(self.queue)
        for _ in out:
            self.task_done()
        return [item.message for item in sorted(out, key=lambda item: item._queued_time)]

    def _empty(self, elsewhere: Callable[[Any], None]) -> None:
        items = []
        with suppress(Empty):
            while True:
                items.append(self.get_nowait())
        for item in reversed(items):
            elsewhere(item.message)
            self.task_done()
