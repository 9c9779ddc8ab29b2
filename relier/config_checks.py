"""Look at the settings themselves: what each says is right by itself, and may still not fit the rest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import redis
from dramatiq import Broker

from relier.brokers.adapters import adapter_of
from relier.preflight import Check, Finding
from relier.settings import Settings
from relier.store import Store

#: Threads of a worker process unless Dramatiq's `--threads` says something else.
THREADS = 8
#: Connections that a worker process has beside those of its threads: heartbeat, control channel, publisher.
OWN_CONNECTIONS = 4
#: The share of Redis's connections that may be in use.
ROOM = 0.8


def check_timing(settings: Settings) -> Iterator[Finding]:
    """Tell of durations that contradict each other."""
    if settings.redis_socket_timeout >= settings.heartbeat_ttl:
        yield Finding(
            "warning",
            "timing",
            f"One slow answer of Redis (RELIER_REDIS_SOCKET_TIMEOUT, {settings.redis_socket_timeout:g} s) makes a"
            f" worker miss its RELIER_HEARTBEAT_TTL ({settings.heartbeat_ttl:g} s).",
            "Let the heartbeat TTL be at least twice the socket timeout.",
        )
    elif settings.resurrection_check_interval > settings.heartbeat_ttl:
        yield Finding(
            "warning",
            "timing",
            f"Sweeps are rarer (RELIER_RESURRECTION_CHECK_INTERVAL, {settings.resurrection_check_interval:g} s) than"
            f" RELIER_HEARTBEAT_TTL ({settings.heartbeat_ttl:g} s).",
            "Let a sweep come several times within the heartbeat TTL; the default is 0.25 s.",
        )
    else:
        ttl, timeout = settings.heartbeat_ttl, settings.redis_socket_timeout
        yield Finding("ok", "timing", f"A heartbeat TTL of {ttl:g} s leaves room for answers that take {timeout:g} s.")


def check_keys(settings: Settings) -> Iterator[Finding]:
    """Tell whether messages are signed, where others can reach the broker."""
    is_external = settings.redis_url or settings.broker_url or settings.redis_use_sentinel
    if settings.signing_keys is None and is_external:
        message = "RELIER_SIGNING_KEYS is not set: whoever can write to the broker can enqueue tasks of any content."
        fix = "echo main:$(openssl rand -hex 32) | rl config set SIGNING_KEYS -   (the same for every process)"
        yield Finding("warning", "signing keys", message, fix)


def check_checkpoint_dir(settings: Settings) -> Iterator[Finding]:
    """Tell of a folder of checkpoints that is set and not used."""
    if settings.checkpoint_backend == "inline" and "checkpoint_dir" in settings.model_fields_set:
        message = "RELIER_CHECKPOINT_DIR is set, but checkpoints are kept inline."
        fix = "Set RELIER_CHECKPOINT_BACKEND=filesystem, or unset RELIER_CHECKPOINT_DIR."
        yield Finding("warning", "checkpoints", message, fix)


def pool_check(store: Store) -> Check:
    """Return the check that pools and Redis have room for the threads of the workers."""

    def check(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
        threads = [int(told.get("threads") or 0) for told in store.fleet.workers().values()]
        yield _pool(settings, threads)
        yield from _clients(client)

    return check


def _pool(settings: Settings, threads: list[int]) -> Finding:
    most, pool = max(threads, default=0) or THREADS, settings.redis_max_connections
    whose = "the busiest worker has" if any(threads) else "a worker has by default"
    needed = most + OWN_CONNECTIONS
    if pool < needed:
        message = f"RELIER_REDIS_MAX_CONNECTIONS is {pool}, and {whose} {most} threads."
        fix = f"Set it to {needed} at least (threads and {OWN_CONNECTIONS}), or run fewer threads (-t)."
        return Finding("warning", "pool size", message, fix)
    return Finding("ok", "pool size", f"A pool of {pool} connections is enough: {whose} {most} threads.")


def _clients(client: redis.Redis) -> Iterator[Finding]:
    about = client.info("clients")
    most, now = int(about.get("maxclients") or 0), int(about.get("connected_clients") or 0)
    if most and now > most * ROOM:
        message = f"Redis has {now} connections, and takes {most} at most (maxclients)."
        yield Finding("warning", "connections", message, "Raise maxclients in redis.conf, or run fewer threads.")
    elif most:
        yield Finding("ok", "connections", f"Redis has {now} connections of {most} that it takes.")


def reachable_broker(broker: Broker) -> Iterable[Finding]:
    """Tell whether a broker that is not the store's Redis answers; never raises for what it finds."""
    adapter = adapter_of(broker)
    try:
        return list(adapter.inspect())
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        return [Finding("error", "broker", f"The broker ({adapter.place()}) does not answer: {text}")]
