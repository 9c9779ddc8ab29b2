from __future__ import annotations

import dramatiq
from dramatiq.broker import MessageProxy
from dramatiq.worker import _WorkQueueItem

from relier.deferred import DeferredCommits
from relier.work_queue import RecoveryFirst


class Idle(DeferredCommits):
    """No thread has put a commit aside."""

    def __init__(self) -> None:
        self._waiting = {}


def item(name: str, queue: str, priority: int = 0) -> _WorkQueueItem:
    message: dramatiq.Message[None] = dramatiq.Message(queue, name, (), {}, {})
    return _WorkQueueItem(priority, MessageProxy(message))


def test_a_worker_runs_orphans_before_what_it_prefetched_but_never_before_what_is_more_urgent() -> None:
    queue = RecoveryFirst(Idle())
    for one in (
        item("prefetched", "default"),
        item("prefetched too", "default"),
        item("orphan", "default.DQ"),
        item("orphan too", "default.DQ"),
        item("less urgent orphan", "default.DQ", priority=1),
        item("urgent", "default", priority=-1),
    ):
        queue.put(one)
    order = [queue.get().message.actor_name for _ in range(6)]
    assert order == ["urgent", "orphan", "orphan too", "prefetched", "prefetched too", "less urgent orphan"]
