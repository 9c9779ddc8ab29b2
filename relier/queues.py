"""Queues that are Relier's own."""

from __future__ import annotations

#: The resurrector's queue; each resurrector process has one of its own behind this prefix.
RESURRECTOR_QUEUE = "relier.resurrector"

#: The queue of a dedicated recovery pool.
RECOVERY_QUEUE = "re-queue"


def is_internal(queue_name: str) -> bool:
    """Whether messages of this queue are Relier's own: exempt from claim, admission and retry."""
    return queue_name.startswith(RESURRECTOR_QUEUE)
