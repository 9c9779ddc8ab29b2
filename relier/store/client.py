"""Builds the Redis client that the settings describe."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import redis
from redis.connection import SSLConnection, parse_url
from redis.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection

from relier.errors import RelierStartupError
from relier.settings import Settings
from relier.store.connection import no_retries
from relier.store.topology import Address, Prompt, Topology, client_of, slot_of
from relier.urls import servers_of

logger = logging.getLogger(__name__)

#: What a URL says about the place of a server, which Sentinel and Cluster tell by themselves.
_PLACE = ("host", "port", "path", "connection_class", "db")


def connect(settings: Settings, url: str | None = None, **more: Any) -> redis.Redis:
    """Return a client for `url`, else for the settings' Redis (embedded when there is none). Connects on first use.

    On a Redis Cluster it leads to the server that has the fleet's shard, and `runner_for` to all of them.
    """
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
    if url is None and settings.redis_use_sentinel:
        return _through_sentinel(settings, options)
    if url is None and settings.redis_use_cluster:
        return _to_cluster(settings, options)
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


class PromptSentinelConnection(Prompt, SentinelManagedConnection):
    """Asks the Sentinels for the master whenever it connects."""


class PromptSentinelSSLConnection(Prompt, SentinelManagedSSLConnection):
    """The same over TLS."""


def _through_sentinel(settings: Settings, options: dict[str, Any]) -> redis.Redis:
    """A URL beside Sentinel tells user, password, database and TLS of the master; its host is not used."""
    told = parse_url(settings.redis_url) if settings.redis_url else {}
    secured = told.get("connection_class") is SSLConnection
    options = {**options, **_without_place(told)}
    timeouts = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), settings.redis_connect_timeout)
    asking: dict[str, Any] = {**timeouts, "retry": no_retries(), "protocol": 2}
    if settings.redis_sentinel_password is not None:
        asking["password"] = settings.redis_sentinel_password.get_secret_value()
    sentinel = Sentinel(list(settings.redis_sentinel_nodes), sentinel_kwargs=asking)
    client: redis.Redis = sentinel.master_for(
        settings.redis_sentinel_master_name,
        connection_class=PromptSentinelSSLConnection if secured else PromptSentinelConnection,
        db=told.get("db", 0),
        **options,
    )
    return client


def _to_cluster(settings: Settings, options: dict[str, Any]) -> redis.Redis:
    assert settings.redis_url is not None
    told = [parse_url(url) for url in servers_of(settings.redis_url)]
    seeds: list[Address] = [(str(each.get("host", "localhost")), int(each.get("port", 6379))) for each in told]
    secured = told[0].get("connection_class") is SSLConnection
    most = options.pop("max_connections")
    return client_of(Topology(seeds, {**options, **_without_place(told[0])}, secured), slot_of("{00}"), most)


def _without_place(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in _PLACE}
