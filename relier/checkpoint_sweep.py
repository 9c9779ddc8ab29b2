"""Removes checkpoint files that nothing refers to: of processes that died in between, of tasks that were purged."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from relier.checkpoint_files import CheckpointFiles, header_of, token_of
from relier.store import SHARDS, Store
from relier.store.connection import UNAVAILABLE

logger = logging.getLogger(__name__)

#: How often (s) the folder is swept.
INTERVAL = 600.0
#: How old (s) a file is at least that is swept, by the clock of its file system: whoever wrote it has long told the
#: store, or was declared dead.
OLD = 3600.0
#: Files that are asked for in one go.
BATCH = 100


class CheckpointSweep:
    """Sweeps the checkpoint files of one store from time to time, in a thread of its own: a folder may hang."""

    def __init__(self, files: CheckpointFiles, store: Store) -> None:
        self._files = files
        self._store = store
        self._next = time.monotonic() + INTERVAL / 10
        self._thread: threading.Thread | None = None

    def begin_if_due(self) -> None:
        """Begin a round when it is time and none is under way."""
        if time.monotonic() < self._next or (self._thread is not None and self._thread.is_alive()):
            return
        self._next = time.monotonic() + INTERVAL
        self._thread = threading.Thread(target=self._round, name="relier-checkpoint-sweep", daemon=True)
        self._thread.start()

    def _round(self) -> None:
        try:
            removed = self.sweep()
        except UNAVAILABLE as error:  # OSError is one of them.
            logger.debug("A sweep of checkpoint files failed.", extra={"error": type(error).__name__})
        except Exception:
            logger.exception("A sweep of checkpoint files failed.")
        else:
            if removed:
                logger.info("Removed checkpoint files of tasks that do not need them.", extra={"count": removed})

    def sweep(self) -> int:
        """Remove what is old and of no use; returns how many files."""
        if self._files.standing() != "shared":
            return 0
        folder, removed, batch = self._files.folder(), 0, []
        now = _clock_of(folder)
        for path in _files_of(folder):
            with contextlib.suppress(FileNotFoundError):
                if now - path.stat().st_mtime > OLD:
                    batch.append(path)
            if len(batch) == BATCH:
                removed += self._remove_useless(batch)
                batch = []
        return removed + self._remove_useless(batch)

    def _remove_useless(self, paths: list[Path]) -> int:
        useless = [path for path in paths if path.name.startswith(".")]  # never finished
        by_shard: dict[int, list[tuple[Path, str]]] = {}
        for path in paths:
            if path not in useless and (task := _task_of(path)) is not None:
                by_shard.setdefault(task[0], []).append((path, task[1]))
        for shard, files in by_shard.items():
            places = self._store.checkpoints.where(shard, [task_id for _, task_id in files])
            useless += [path for (path, _), where in zip(files, places, strict=True) if not _is_needed(path, where)]
        for path in useless:
            path.unlink(missing_ok=True)
        return len(useless)


def _clock_of(folder: Path) -> float:
    """Return what the time is on the file system: it may be another host's."""
    probe = folder / f".clock-{threading.get_ident()}"
    probe.touch(0o600)
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _files_of(folder: Path) -> Iterator[Path]:
    for inner in folder.iterdir():
        if inner.is_dir():
            yield from inner.iterdir()


def _task_of(path: Path) -> tuple[int, str] | None:
    """Return shard and id of a file's task; None for a file that is none of ours, which is left alone."""
    try:
        header = header_of(path)
        shard, task_id = header["shard"], header["task"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (shard, task_id) if isinstance(shard, int) and 0 <= shard < SHARDS and isinstance(task_id, str) else None


def _is_needed(path: Path, where: str) -> bool:
    return where == "?" or where.startswith(f"f{token_of(path)}.")
