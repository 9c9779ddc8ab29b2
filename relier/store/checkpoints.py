"""Where the checkpoints of tasks are: small ones in the record, larger ones beside it, and the references of files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import redis

from relier.errors import RunUnknownError, StaleFenceError, StoreError
from relier.store.connection import Argument, ScriptRunner
from relier.store.keys import Keys
from relier.store.scripts import script
from relier.store.verdicts import Sending

if TYPE_CHECKING:
    from relier.store.tasks import Tasks

#: In the record, in a key of its own, in a file.
Where = Literal["s", "k", "f"]


class Checkpoints:
    """Checkpoint operations of one namespace. Each may be repeated after a lost reply."""

    def __init__(self, runner: ScriptRunner, keys: Keys, tasks: Tasks) -> None:
        self._runner = runner
        self._keys = keys
        self._tasks = tasks

    def keep(self, worker: str, sending: Sending, fence: int, where: Where, data: bytes) -> str:
        """Let `data`, for a file its reference, be the task's checkpoint.

        Returns the reference of a file that is of no use any more, or ''. Raises `StaleFenceError` when the run under
        `fence` is no longer the task's, `RunUnknownError` when the store lost it, and `StoreError` when Redis is out
        of memory; the checkpoint before stays then.
        """
        reply = self._keep(worker, sending, fence, where, data)
        if reply[0] == b"lost":  # The store rolled back behind this run.
            self._tasks.adopt(worker, sending, fence)
            reply = self._keep(worker, sending, fence, where, data)
        if reply[0] in (b"lost", b"unknown"):
            raise RunUnknownError(f"The store has lost the run of task {sending.task_id}.")
        if reply[0] != b"kept":
            raise StaleFenceError(f"Task {sending.task_id} has moved on: a checkpoint of this run is refused.")
        return bytes(reply[1]).decode()

    def _keep(self, worker: str, sending: Sending, fence: int, where: Where, data: bytes) -> Any:
        try:
            return self._run("checkpoint", sending.shard, worker, worker, sending.task_id, fence, where, data)
        except redis.exceptions.OutOfMemoryError as error:
            text = f"Redis is out of memory: the checkpoint of task {sending.task_id} stays what it was."
            raise StoreError(text) from error

    def read(self, shard: int, task_id: str) -> bytes | None:
        """Return a checkpoint that has a key of its own."""
        data: bytes | None = self._run("checkpoint_read", shard, "", task_id)
        return data

    def where(self, shard: int, task_ids: Sequence[str]) -> list[str]:
        """Tell of each task where its checkpoint is (see `include/record.lua`); `?` when it is not ours to know."""
        return [bytes(reply).decode() for reply in self._run("checkpoint_where", shard, "", *task_ids)]

    def _run(self, name: str, shard: int, worker: str, *args: Argument) -> Any:
        return self._runner.run_shared(script(name), self._keys.shard(shard, worker), (self._tasks.now(), *args))


def size_of(where: str) -> int:
    """Return how many bytes the checkpoint has that a record tells of; 0 for none."""
    if not where:
        return 0
    return int(where[1:] if where[0] in "sk" else where.split(".")[1])
