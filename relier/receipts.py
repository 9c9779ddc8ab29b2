"""What a producer keeps of a task that it pushed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal, Self, cast

__all__ = ["TaskReceipt", "TaskStatus"]

TaskStatus = Literal["queued", "scheduled", "running", "completed", "dead", "discarded", "unknown"]


@dataclass(frozen=True, slots=True)
class TaskReceipt:
    """Names one task. Can be pickled; `id` is all that another process needs for `from_id`."""

    id: str
    #: Whether this receipt comes from the push itself: then the task is known to have been accepted.
    pushed: bool = field(default=False, repr=False, compare=False)

    @classmethod
    def from_id(cls, task_id: str) -> Self:
        """Make a receipt from the id of a task, as kept in a database or a URL."""
        if not isinstance(task_id, str) or not task_id:
            raise ValueError(f"A task id is a text, not {task_id!r}.")
        return cls(task_id)

    @classmethod
    def of(cls, message: Any) -> Self:
        """Make the receipt of a message that was just enqueued."""
        stamp = message.options.get("relier")
        task_id = stamp.get("id") if isinstance(stamp, dict) else None
        return cls(task_id or message.message_id, pushed=True)

    def status(self) -> TaskStatus:
        """Ask the store for the task's state.

        Without a record, as before the first worker takes the task and after its end was forgotten, the receipt
        of a push says `queued` and one made by `from_id` says `unknown`.
        """
        from relier.installation import default_store

        found = default_store().status(self.id)
        return cast("TaskStatus", found or ("queued" if self.pushed else "unknown"))

    async def astatus(self) -> TaskStatus:
        """Ask the store for the task's state without blocking the event loop. See `status`."""
        return await asyncio.to_thread(self.status)

    def __str__(self) -> str:
        return self.id
