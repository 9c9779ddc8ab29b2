from __future__ import annotations

from queue import Empty

import dramatiq
import pytest
from dramatiq.broker import MessageProxy
from dramatiq.worker import _WorkQueueItem

from relier.deferred import DeferredCommits
from relier.work_queue import RecoveryFirst

#: Longer than a test may take.
PATIENCE = 3600.0


class Idle(DeferredCommits):
    """No thread has put a commit aside."""

    def __init__(self) -> None:
        self._owing = set()


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


def test_a_draining_worker_turns_away_what_waits_and_what_still_comes() -> None:
    queue, turned_away = RecoveryFirst(Idle()), []
    for one in (item("urgent", "default", priority=-1), item("first", "default"), item("second", "default")):
        queue.put(one)

    queue.turn_away(lambda message: turned_away.append(message.actor_name))
    queue.put(item("late", "default"))

    assert turned_away == ["second", "first", "urgent", "late"]  # Each goes to the head of its queue.
    assert queue.unfinished_tasks == 0
    with pytest.raises(Empty):
        queue.get(timeout=PATIENCE)  # Whoever waits for work looks soon whether it is to end.


def test_what_waits_of_one_queue_is_taken_out_in_the_order_it_came() -> None:
    queue = RecoveryFirst(Idle())
    for one in (
        item("first", "paused"),
        item("urgent", "paused", priority=-1),
        item("another", "default"),
        item("orphan", "paused.DQ"),
    ):
        queue.put(one)

    assert [message.actor_name for message in queue.take_out("paused")] == ["first", "urgent"]
    assert [message.actor_name for message in queue.take_out("paused.DQ")] == ["orphan"]
    assert queue.take_out("paused") == []
    assert queue.unfinished_tasks == 1
    assert queue.get().message.actor_name == "another"
