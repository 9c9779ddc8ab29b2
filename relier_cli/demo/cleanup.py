"""Leave nothing behind: neither a server nor keys."""

from __future__ import annotations

import os
import time

import redis

from relier.embedded import EmbeddedServer, guardian
from relier.settings import Settings
from relier.store import get_store

#: Longest wait (s) for the embedded server's end.
SERVER_PATIENCE = 10.0


def stop_server(server: EmbeddedServer) -> None:
    """Give up the demo's embedded server and wait until it and its guardian have ended."""
    state = guardian.read_state(str(server.state_dir))
    server.close()
    deadline = time.monotonic() + SERVER_PATIENCE
    while state is not None and _is_running(state.guardian_pid) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


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
