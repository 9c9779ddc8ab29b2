"""Large checkpoints in a folder that all workers share: durable before anybody is told, checked when they are read.

A file is written once, under a name of its own, and never changed: the store tells which one is in force. So a write
that fails, and a run that was overtaken, leave the one before as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import threading
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

#: In the store's folder; who does not see it looks at another folder than the one that made it.
MARKER = "shared"
#: How long (s) the name of the store's folder is taken for granted.
NAME_KEPT = 60.0
#: Longest first line of a file.
HEADER_BYTES = 4096

_FOLDER = re.compile(r"[0-9a-f]{16}")
_SUFFIX = ".ckpt"


@dataclass(frozen=True, slots=True)
class Reference:
    """What names a file and its bytes: folder, one write, size and SHA-256 of what was written."""

    token: str
    size: int
    digest: str
    folder: str

    @classmethod
    def parse(cls, text: str) -> Reference:
        token, size, digest, folder = text.split(".")
        if not (_FOLDER.fullmatch(token) and _FOLDER.fullmatch(folder)):
            raise ValueError(f"{text!r} names no checkpoint file.")
        return cls(token, int(size), digest, folder)

    def __str__(self) -> str:
        return f"{self.token}.{self.size}.{self.digest}.{self.folder}"

    def path(self, root: Path, task_id: str) -> Path:
        """Return where the file is. Task ids are hashed, so that none leads anywhere else."""
        name = hashlib.sha256(task_id.encode("utf-8", "surrogatepass")).hexdigest()[:40]
        return root / self.folder / name[:2] / f"{name}-{self.token}{_SUFFIX}"


class CheckpointFiles:
    """The files of one store, in a folder of the store's own: others may use the same `RELIER_CHECKPOINT_DIR`.

    Parameters:
      root: `RELIER_CHECKPOINT_DIR`.
      name_folder: asks the store for the folder's name; proposes one when there is none (see `Fleet`).
    """

    def __init__(self, root: Path, name_folder: Callable[[str], str]) -> None:
        self.root = root
        self._name_folder = name_folder
        self._lock = threading.Lock()
        self._name = ""
        self._named_at = 0.0

    # -- writing and reading ------------------------------------------------------------------------------------

    def write(self, task_id: str, shard: int, data: bytes) -> str:
        """Write a checkpoint and return its reference; it is durable then. Raises `OSError`."""
        digest = hashlib.sha256(data).hexdigest()
        reference = Reference(secrets.token_hex(8), len(data), digest, self.folder().name)
        path = reference.path(self.root, task_id)
        make_folder(path.parent)
        header = json.dumps({"v": 1, "task": task_id, "shard": shard})
        _write_durably(path, header.encode() + b"\n" + zlib.compress(data, 1))
        return str(reference)

    def read(self, task_id: str, text: str) -> bytes | None:
        """Return a checkpoint's bytes; None, and a warning, when the file is gone or damaged.

        Raises `OSError` when the folder cannot be read at this moment.
        """
        try:
            reference = Reference.parse(text)
            raw = reference.path(self.root, task_id).read_bytes()
            return _checked(raw, reference)
        except FileNotFoundError:
            why = "its file is gone"
        except (zlib.error, ValueError):
            why = "its file is damaged"
        extra = {"task": task_id, "why": why, "folder": str(self.root)}
        logger.warning("A checkpoint cannot be read; its task begins anew.", extra=extra)
        return None

    def remove(self, task_id: str, text: str) -> None:
        """Remove a file that nobody refers to. What cannot be removed is swept later."""
        with contextlib.suppress(OSError, ValueError):
            Reference.parse(text).path(self.root, task_id).unlink(missing_ok=True)

    # -- the folder ---------------------------------------------------------------------------------------------

    def folder(self) -> Path:
        """Return the store's folder, made when it is missing. Asks the store now and then: it may have been emptied."""
        with self._lock:
            if not self._name or time.monotonic() - self._named_at > NAME_KEPT:
                name = self._find_folder()
                if name != self._name:
                    self._enter(self.root / name)
                self._name, self._named_at = name, time.monotonic()
            return self.root / self._name

    def standing(self) -> str:
        """Tell whether this process sees the folder that others write to: unused, shared, or apart."""
        if not self._name_folder(""):
            return "unused"
        marker = self.marker()
        return "shared" if marker is not None and os.path.exists(marker) else "apart"

    def marker(self) -> Path | None:
        """Return the file by which the store's folder is known; None when there is none, or one of a strange name."""
        name = self._name_folder("")
        return self.root / name / MARKER if _FOLDER.fullmatch(name) else None

    def _find_folder(self) -> str:
        name = self._name_folder("")
        if not name:
            name = self._propose()
        if not _FOLDER.fullmatch(name):
            raise ValueError(f"The store names a folder that is none of ours: {name!r}.")
        return name

    def _propose(self) -> str:
        """Make a folder and its marker before the store learns of it; of several processes one wins."""
        proposed = secrets.token_hex(8)
        folder = self.root / proposed
        make_folder(folder)
        (folder / MARKER).touch(0o600)
        _sync_folder(folder)
        name = self._name_folder(proposed)
        if name != proposed:
            (folder / MARKER).unlink()
            folder.rmdir()
        return name

    @staticmethod
    def _enter(folder: Path) -> None:
        make_folder(folder)
        if not (folder / MARKER).exists():
            logger.warning(
                "The folder of checkpoints is not the one that other workers use.", extra={"folder": str(folder)}
            )


def header_of(path: Path) -> dict[str, Any]:
    """Return what a file tells of its task. Raises `OSError` or `ValueError`."""
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.readline(HEADER_BYTES))
    return header


def token_of(path: Path) -> str:
    """Return which write a file is of."""
    return path.name.removesuffix(_SUFFIX).rpartition("-")[2]


def _checked(raw: bytes, reference: Reference) -> bytes:
    """Unpack a file's bytes. Raises `ValueError` or `zlib.error` when they are not what was written."""
    unpacking = zlib.decompressobj()
    data = unpacking.decompress(raw.partition(b"\n")[2], reference.size + 1)
    if len(data) != reference.size or hashlib.sha256(data).hexdigest() != reference.digest:
        raise ValueError("the checksum is another one")
    return data


def make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, for its owner alone."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(0o700, exist_ok=True)
    _sync_folder(folder.parent)


def _write_durably(path: Path, data: bytes) -> None:
    """Write a file so that after a power failure it is there as a whole, or not at all."""
    temporary = path.with_name(f".{path.name}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
