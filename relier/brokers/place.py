"""Where a broker is, so that two processes can tell whether they use the same one."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Any

import redis
from redis.sentinel import SentinelConnectionPool

from relier.store.topology import SlotPool

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """What a process tells of its broker."""

    family: str  #: brokers of one family understand each other's messages
    address: str = ""  #: where it is, without secrets; '' when that cannot be told
    server: str = ""  #: the server's name for itself: it may be known under several addresses

    @classmethod
    def of(cls, told: Any) -> Place | None:
        """Return what a process told; None when it told nothing that we know."""
        try:
            return cls(**told)
        except TypeError:
            return None

    def matches(self, other: Place | None) -> bool:
        """Whether both may be one broker. Who told nothing is given the benefit of the doubt."""
        if other is None:
            return True
        if self.family != other.family:
            return False
        return self.address == other.address or (bool(self.server) and self.server == other.server)

    def __str__(self) -> str:
        return f"{self.family} at {self.address}" if self.address else self.family


def address(client: redis.Redis) -> tuple[Any, ...]:
    """Return where a client's server is, databases aside: those are saved and lost together."""
    pool = client.connection_pool
    if isinstance(pool, SlotPool):
        return "cluster", *sorted(pool.topology.seeds)
    if isinstance(pool, SentinelConnectionPool):
        sentinels = (s.connection_pool.connection_kwargs for s in pool.sentinel_manager.sentinels)
        return pool.service_name, *sorted((str(k.get("host")), int(k.get("port", 26379))) for k in sentinels)
    kwargs = pool.connection_kwargs
    return kwargs.get("path"), kwargs.get("host", "localhost"), int(kwargs.get("port", 6379))


def redis_place(client: Any, namespace: str) -> Place:
    """Tell which Redis a client leads to, and the namespace of the messages in it."""
    if not isinstance(client, redis.Redis):
        return Place("redis", f"? {namespace}")
    found = address(client)
    tail = f"/{client.connection_pool.connection_kwargs.get('db') or 0} {namespace}"
    if isinstance(client.connection_pool, SlotPool):
        where = "cluster " + ",".join(f"{host}:{port}" for host, port in found[1:])
    elif isinstance(client.connection_pool, SentinelConnectionPool):
        where = f"sentinel {found[0]}"
    elif found[0]:
        where = f"unix://{found[0]}"
    else:
        where = f"redis://{found[1]}:{found[2]}"
    try:
        name = client.get(f"{namespace}:{_MARK}")
        server = name.decode() if isinstance(name, bytes) else str(name or "")
    except (redis.RedisError, OSError):
        server = ""
    return Place("redis", where + tail, server)


#: Key in a broker's namespace: its name for itself, whatever address leads to it. Outlives restarts and failovers.
_MARK = "__relier_place__"


def mark_redis(client: redis.Redis, namespace: str) -> None:
    """Give the messages in a Redis a name, unless they have one."""
    try:
        client.set(f"{namespace}:{_MARK}", secrets.token_hex(16), nx=True)
    except (redis.RedisError, OSError):
        logger.debug("The broker cannot be marked.")


def rabbitmq_place(parameters: Any, cluster: str, prefix: str = "") -> Place:
    """Tell which RabbitMQ pika's parameters lead to. `prefix` is before the queues' names there."""
    first = parameters[0] if isinstance(parameters, list) else parameters
    tail = f"{'' if first.virtual_host == '/' else '/' + first.virtual_host}{prefix and ' ' + prefix}"
    return Place("rabbitmq", f"amqp://{first.host}:{first.port}{tail}", cluster and f"{cluster}{tail}")


def cluster_of(channel: Any) -> str:
    """Return the name of the cluster that a blocking channel of pika leads to; '' when it has none."""
    name = channel.connection._impl.server_properties.get("cluster_name", "")
    return name.decode() if isinstance(name, bytes) else str(name)
