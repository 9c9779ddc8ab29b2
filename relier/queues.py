"""Queues that are Relier's own."""

from __future__ import annotations

from dramatiq.common import dq_name, q_name

#: The resurrector's queue; each resurrector process has one of its own behind this prefix.
RESURRECTOR_QUEUE = "relier.resurrector"

#: The queue of a dedicated recovery pool.
RECOVERY_QUEUE = "re-queue"


def lane_of(queue_name: str) -> str:
    """Return where copies of the store go for a queue: its delay lane, which every consumer of the queue takes first.

    The queue of a recovery pool carries nothing else, so it is its own lane.
    """
    return queue_name if queue_name == RECOVERY_QUEUE else dq_name(queue_name)


def is_lane(queue_name: str) -> bool:
    """Whether this is where copies of the store go."""
    return queue_name == RECOVERY_QUEUE or queue_name != q_name(queue_name)


def is_internal(queue_name: str) -> bool:
    """Whether messages of this queue are Relier's own: exempt from claim, admission and retry."""
    return queue_name.startswith(RESURRECTOR_QUEUE)
