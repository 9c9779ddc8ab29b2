"""Leave nothing behind: neither a server nor keys."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import redis

from relier.embedded import EmbeddedServer, guardian
from relier.settings import Settings
from relier.store import get_store

#: Longest wait (s) for the embedded server's end.
SERVER_PATIENCE = 10.0


def stop_server(server: EmbeddedServer) -> None:
    """Give up the demo's embedded server and wait until it and its guardian have ended."""
    server.close()
    deadline = time.monotonic() + SERVER_PATIENCE
    # The guardian drops the first lock when the server has ended, and the second with its own end.
    for lock in (guardian.GUARDIAN_LOCK, guardian.USERS_LOCK):
        while _is_taken(server.state_dir / lock) and time.monotonic() < deadline:
            time.sleep(0.02)


def _is_taken(path: Path) -> bool:
    fd = guardian.open_lock(str(path))
    try:
        return not guardian.try_lock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def remove_keys(settings: Settings) -> None:
    """Remove the keys of the demo's namespace from a server that is not its own."""
    client = get_store(settings).client
    try:
        for prefix in (f"rl:{settings.namespace}:", f"dramatiq:{settings.namespace}:"):
            keys = list(client.scan_iter(match=prefix + "*", count=1000))
            for i in range(0, len(keys), 500):
                client.unlink(*keys[i : i + 500])
    except (redis.ConnectionError, redis.TimeoutError):
        pass  # It was never reached, or is gone.
