"""Hold the embedded server: as long as one process has a hold, the guardian keeps the server running."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from relier.embedded import guardian
from relier.errors import RelierStartupError


class Hold:
    """A shared lock on `users.lock`; the kernel drops it with the process."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self._path = path
        self._identity = os.fstat(fd)

    @classmethod
    def take(cls, state_dir: Path) -> Hold | None:
        """Return a new hold, or None while a guardian is ending."""
        path = str(state_dir / guardian.USERS_LOCK)
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = guardian.open_lock(path)
            if guardian.try_lock(fd, fcntl.LOCK_SH):
                return cls(fd, path)
            os.close(fd)
        except (OSError, ValueError) as error:
            raise unusable(state_dir, error) from error
        return None

    def valid(self) -> bool:
        """Tell whether it still counts: neither closed behind our back nor on a deleted file."""
        return self._ours() and guardian.same_file(self._fd, self._path)

    def release(self) -> None:
        # Never unlock: a child forked without our hook may share this lock.
        if self._ours():
            os.close(self._fd)

    def _ours(self) -> bool:
        """A daemon that closed all its files may have reused the number."""
        try:
            return os.path.samestat(os.fstat(self._fd), self._identity)
        except OSError:
            return False


def unusable(state_dir: Path, error: Exception) -> RelierStartupError:
    reason = str(error)
    if isinstance(error, OSError):
        reason = f"{error.strerror} ({error.filename})" if error.filename else f"{error.strerror}"
    return RelierStartupError(
        f"Relier cannot use its state folder {str(state_dir)!r}: {reason}. It must be a folder that this user"
        " can write to. Set RELIER_STATE_DIR to one, or RELIER_REDIS_URL to use a Redis server instead."
    )
