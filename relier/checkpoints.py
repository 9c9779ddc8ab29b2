"""Checkpoints: what a run leaves of its work, so that the next one goes on from there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dramatiq import get_encoder

from relier import failpoints
from relier.errors import CheckpointTooLargeError, StaleFenceError, StoreError, StoreUnavailableError
from relier.runs import Phase, Run

if TYPE_CHECKING:
    from relier.process import WorkerProcess
    from relier.store.checkpoints import Where

#: Up to this size (bytes) a checkpoint is in its task's record, which saves a key (170 bytes) and a round trip. Every
#: step of the task reads and writes the record, so larger ones are beside it.
SMALL = 1024

#: What stands for a value that was not read yet.
_UNREAD = object()


class Checkpoint:
    """The checkpoint of a run's task.

    Parameters:
      process: that runs it.
      run: under whose fence it is kept.
      where: what the claim told of an earlier run's checkpoint (see `include/record.lua`).
    """

    __slots__ = ("_data", "_process", "_run", "_value", "_where")

    def __init__(self, process: WorkerProcess, run: Run, where: bytes) -> None:
        self._process = process
        self._run = run
        self._where = where
        #: Its bytes, once they are here.
        self._data: bytes | None = None
        self._value: Any = _UNREAD

    @property
    def value(self) -> Any:
        """What was kept last, by this run or an earlier one; None when nothing was. Fetched when it is first read."""
        if self._value is _UNREAD:
            self.fetch()
            self._value = get_encoder().decode(self._data)["p"] if self._data else None
        return self._value

    def fetch(self) -> None:
        """Have its bytes here; waits for the store, or for the folder of files. Raises `OSError`."""
        if self._data is None and self._where:
            self._data = self._fetch()

    def keep(self, value: Any) -> None:
        """Keep a value in place of the one before; waits for the store while that is away.

        Raises `TypeError` for what cannot be encoded, `CheckpointTooLargeError`, `StaleFenceError` when the run is no
        longer its task's, `OSError` and `StoreError` when there is no room; the one before stays then.
        """
        data, run, settings = self._encode(value), self._run, self._process.settings
        if run.phase is not Phase.RUNNING:
            raise StaleFenceError(f"Task {run.task_id} has moved on: a checkpoint of this run is refused.")
        if len(data) > settings.checkpoint_max_inline_bytes:
            self._keep_in_file(data)
            self._data = None
        else:
            where: Where = "s" if len(data) <= SMALL else "k"
            self._record(where, data, len(data))
            self._data = data
        self._value = _UNREAD

    def forget(self) -> None:
        """Remove its file, if it has one, once the task has ended and nobody will read it."""
        if self._where[:1] == b"f":
            self._process.checkpoint_files.remove(self._run.task_id, self._where[1:].decode())

    def _encode(self, value: Any) -> bytes:
        try:
            return get_encoder().encode({"p": value})
        except Exception as error:
            encoder = type(get_encoder()).__name__
            raise TypeError(
                f"The checkpoint of task {self._run.task_id} cannot be encoded by {encoder}: {error}"
            ) from error

    def _keep_in_file(self, data: bytes) -> None:
        settings, run = self._process.settings, self._run
        if settings.checkpoint_backend != "filesystem":
            raise too_large(run.task_id, len(data), settings.checkpoint_max_inline_bytes)
        files = self._process.checkpoint_files
        reference = files.write(run.task_id, run.stamp.shard, data)
        failpoints.hit("checkpoint-written")
        try:
            self._record("f", reference.encode(), len(data))
        except (StoreError, StaleFenceError) as error:
            # Refused. What else cuts a run short, an interrupt too, may come after the store took note.
            if not isinstance(error, StoreUnavailableError):
                files.remove(run.task_id, reference)
            raise

    def _record(self, where: Where, kept: bytes, size: int) -> None:
        """Let the store take note, and remove the file before, which nothing refers to any more."""
        run, keep = self._run, self._process.store.checkpoints.keep
        old = self._process.patiently(lambda: keep(run.worker_id, run.sending, run.fence, where, kept))
        self._where = where.encode() + kept
        failpoints.hit("checkpoint-recorded")
        if run.trace is not None:
            run.trace.event("checkpoint", kept=where, bytes=size)
        if old:
            self._process.checkpoint_files.remove(run.task_id, old[1:])

    def _fetch(self) -> bytes | None:
        where, run, read = self._where, self._run, self._process.store.checkpoints.read
        if where[:1] == b"k":
            return self._process.patiently(lambda: read(run.stamp.shard, run.task_id))
        if where[:1] == b"f":
            return self._process.checkpoint_files.read(run.task_id, where[1:].decode())
        return where[1:]


def too_large(task_id: str, size: int, limit: int) -> CheckpointTooLargeError:
    """Return the error for a checkpoint that has no place."""
    return CheckpointTooLargeError(
        f"Checkpoint for task '{task_id}' is {size} bytes, which exceeds the {limit}-byte inline limit. Keep less"
        " (where the work stands, not what it made), raise RELIER_CHECKPOINT_MAX_INLINE_BYTES, or set"
        " RELIER_CHECKPOINT_BACKEND=filesystem and RELIER_CHECKPOINT_DIR."
    )
