"""What a producer keeps of a task that it pushed."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

from relier.waiting import Wait, asked

if TYPE_CHECKING:
    from dramatiq import Broker

    from relier.cancelling import Cancellation
    from relier.store import Store
    from relier.store.known import Known

__all__ = ["TaskReceipt", "TaskStatus"]

TaskStatus = Literal["queued", "scheduled", "running", "completed", "dead", "discarded", "unknown"]

T = TypeVar("T")

#: How long (s) `result` waits unless it is told: as long as Dramatiq's `get_result`.
DEFAULT_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class TaskReceipt:
    """Names one task: asks for its status, waits for its result, cancels it.

    Can be pickled; `id` is all that another process needs for `from_id`. Two receipts of one id are equal.
    """

    id: str
    #: Whether this receipt comes from the push itself: then the task is known to have been accepted.
    pushed: bool = field(default=False, repr=False, compare=False)
    #: Where the task is in the store; None: not known.
    shard: int | None = field(default=None, repr=False, compare=False)
    #: When its message was made (ms since the epoch, on the producer's clock); 0: not known.
    created_ms: int = field(default=0, repr=False, compare=False)
    #: How long (ms) its result is kept; 0: it is not; None: not known.
    kept_ms: int | None = field(default=None, repr=False, compare=False)
    _broker: Broker | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_id(cls, task_id: str, *, broker: Broker | None = None) -> Self:
        """Make a receipt from the id of a task, as kept in a database or a URL.

        `broker`: the one it was pushed to; default: the global broker.
        """
        if task_id == "":
            raise ValueError("The task id is empty.")
        if not isinstance(task_id, str):
            raise ValueError(f"A task id is a text, not {task_id!r}.")
        return cls(task_id, _broker=broker)

    @classmethod
    def of(cls, message: Any, broker: Broker) -> Self:
        """Make the receipt of a message that was just enqueued."""
        from relier.envelope import OPTION, Fresh, stamp_of
        from relier.results import kept_for

        kept = kept_for(broker, message, broker.__dict__["relier_installation"].settings)
        option = message.options.get(OPTION)
        if type(option) is Fresh:  # This process wrote it; every push comes by here.
            # With a job key the store had it before anybody else: when nothing is known of it there, it has ended.
            created = 0 if "j" in option else message.message_timestamp
            return cls(option["id"], True, option["s"], created, kept, broker)
        stamp = stamp_of(message)
        return cls(stamp.task_id, True, stamp.shard, message.message_timestamp, kept, broker)

    def status(self) -> TaskStatus:
        """Ask the store for the task's state. Raises `StoreUnavailableError` when it cannot be reached.

        Exact for an actor that keeps results (`store_results=True`), as long as they are kept. For any other, nothing
        is known of a task before the first worker takes it, and again after it completed and was forgotten: then the
        receipt of a push says `queued` while that is certain, else `unknown`. Of a task that waits in the broker the
        store knows nothing either, so a receipt made by `from_id` says `unknown` until a worker takes it.
        """
        known = self._known(self.shard)
        return cast("TaskStatus", known.status or ("queued" if self._is_queued(known) else "unknown"))

    def result(self, timeout: float | None = DEFAULT_TIMEOUT) -> Any:
        """Wait for the task's end and return what its actor returned, as Dramatiq's encoder gives it back.

        `timeout`: seconds; 0 looks once, None waits for ever.

        Raises `TaskFailedError` when the task is a dead letter or was discarded, `ResultTimeout` when it has not ended
        in time, `ResultMissing` when there is nothing to wait for: the actor keeps no results, the result was too large
        or could not be encoded, or its time is over. `StoreUnavailableError` when the store is away and stays so.
        """
        wait = self._wait(timeout)
        for pause in wait.pauses():
            time.sleep(pause)
        return wait.result

    def cancel(self) -> Cancellation:
        """Cancel the task; may be repeated. Raises `StoreUnavailableError` when the store cannot be reached.

        Returns `cancelled`: it ends as `discarded`, and never runs again. `asked`: it runs, and its worker was told: a
        coroutine is cancelled at its next `await`, a function interrupted by `TaskCancelled` at its next line of
        Python. It is its last run, whatever comes of that. `running`: the same, but its worker could not be told now;
        it hears of it later. `ended`: it had ended before. `marked`: nothing is known of it; if it waits in the broker
        it will not run, but it may have run before.
        """
        from relier.cancelling import cancel_task

        def ask(store: Store) -> Cancellation:
            return cancel_task(store, self.id, _who(), self.shard, unclaimed_before=self._unclaimed_before())

        return self._ask(ask)

    async def astatus(self) -> TaskStatus:
        """Ask the store for the task's state without blocking the event loop. See `status`."""
        return await asyncio.to_thread(self.status)

    async def aresult(self, timeout: float | None = DEFAULT_TIMEOUT) -> Any:
        """Wait for the task's end without blocking the event loop, or a thread. See `result`."""
        wait = self._wait(timeout)
        pauses = wait.pauses()
        while (pause := await asyncio.to_thread(next, pauses, None)) is not None:
            await asyncio.sleep(pause)
        return wait.result

    async def acancel(self) -> Cancellation:
        """Cancel the task without blocking the event loop. See `cancel`."""
        return await asyncio.to_thread(self.cancel)

    def __str__(self) -> str:
        return self.id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.id, self.pushed, self.shard, self.created_ms, self.kept_ms)

    def _wait(self, timeout: float | None) -> Wait:
        def look(shard: int | None) -> Known:
            return self._known(shard, result=True)

        return Wait(self.id, look, timeout, self.shard, None if self.kept_ms is None else self.kept_ms > 0)

    def _known(self, shard: int | None, *, result: bool = False) -> Known:
        return self._ask(lambda store: store.known(self.id, shard, result=result))

    def _is_queued(self, known: Known) -> bool:
        """Whether a task of which the store knows nothing surely waits in the broker."""
        if known.floor < self._unclaimed_before():
            return True
        return time.time() * 1000 - self.created_ms < (self.kept_ms or 0)

    def _unclaimed_before(self) -> int:
        """Return the time (µs since the epoch) before which no worker can have claimed the task; 0: not known."""
        return (self.created_ms + 1) * 1000 if self.pushed and self.created_ms else 0

    def _ask(self, question: Callable[[Store], T]) -> T:
        from relier.installation import store_of

        store = store_of(self._broker)
        return asked(lambda: question(store))


def _who() -> str:
    return f"receipt:{os.getpid()}@{socket.gethostname()}"
