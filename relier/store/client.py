"""Builds the Redis client that the settings describe."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import redis
from redis.sentinel import Sentinel

from relier.errors import RelierStartupError
from relier.settings import Settings
from relier.store.connection import no_retries

logger = logging.getLogger(__name__)


def connect(settings: Settings, url: str | None = None, **more: Any) -> redis.Redis:
    """Return a client for `url`, else for the settings' Redis (embedded when there is none). Connects on first use."""
    options: dict[str, Any] = {
        "socket_timeout": settings.redis_socket_timeout,
        "socket_connect_timeout": settings.redis_connect_timeout,
        "max_connections": settings.redis_max_connections,
        "retry": no_retries(),
        "protocol": 2,
        **more,
    }
    if settings.redis_password is not None:
        options["password"] = settings.redis_password.get_secret_value()
    if settings.redis_use_sentinel and url is None:
        return _through_sentinel(settings, options)
    if url is None:
        from relier.embedded import resolve_redis_url

        url = resolve_redis_url(settings.redis_url, settings.state_dir)
    return redis.Redis.from_url(url, **options)


def revive_embedded(state_dir: Path) -> None:
    """Bring the embedded server back if it is gone. Returns at once when it is not ours to bring back."""
    from relier.embedded import ensure_server

    try:
        ensure_server(state_dir).ensure_alive()
    except RelierStartupError:
        logger.warning("The embedded server could not be brought back.", exc_info=True)


def _through_sentinel(settings: Settings, options: dict[str, Any]) -> redis.Redis:
    sentinel_options: dict[str, Any] = {"socket_timeout": settings.redis_connect_timeout}
    if settings.redis_sentinel_password is not None:
        sentinel_options["password"] = settings.redis_sentinel_password.get_secret_value()
    sentinel = Sentinel(list(settings.redis_sentinel_nodes), sentinel_kwargs=sentinel_options)
    client: redis.Redis = sentinel.master_for(settings.redis_sentinel_master_name, **options)
    return client
