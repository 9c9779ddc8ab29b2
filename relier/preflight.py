"""Look at Redis before work begins: what would lose tasks refuses the start, what may is a warning."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import redis

from relier.errors import RelierStartupError
from relier.logging import get_logger
from relier.settings import Settings
from relier.urls import safe_url

log = get_logger(__name__)

#: Redis 7.0 is the oldest server that knows every command and script flag in use.
OLDEST_REDIS = 7

#: Seconds of difference between this host's clock and the server's that are worth a warning.
CLOCK_TOLERANCE = 1.0

#: Commands that not every server has, or that its administrator may have renamed.
NEEDED_COMMANDS = (
    "EVAL", "EVALSHA", "EVALSHA_RO", "SCRIPT", "TIME", "SET", "SCAN", "HSET", "HDEL", "SADD", "SREM",
    "ZADD", "ZRANGE", "ZREM", "XADD", "XRANGE", "SUBSCRIBE", "PUBLISH", "PUBSUB",
)  # fmt: skip

#: A flag that scripts may have since Redis 7.0, and a command of that version that all roles may run.
_PROBE = "#!lua flags=no-writes\nreturn redis.call('TIME')[1]"

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at, and how to mend it when it is not `ok`."""

    level: Level
    name: str
    message: str
    fix: str = ""


Check = Callable[["redis.Redis", Settings], Iterable[Finding]]


def check_redis(client: redis.Redis, settings: Settings, more: Iterable[Check] = ()) -> list[Finding]:
    """Return what was found and log the warnings. Raises `RelierStartupError` at the first error."""
    findings = inspect_redis(client, settings, more)
    for finding in findings:
        if finding.level == "error":
            raise RelierStartupError(finding.message)
    for finding in findings:
        if finding.level == "warning":
            log.warning(finding.message, check=finding.name, fix=finding.fix)
    return findings


def inspect_redis(client: redis.Redis, settings: Settings, more: Iterable[Check] = ()) -> list[Finding]:
    """Look at everything and return one finding each; never raises for what it finds.

    `more` are further checks, which run last.
    """
    findings: list[Finding] = []
    try:
        client.ping()
        findings.append(Finding("ok", "reachability", f"Redis answers at {place(client, settings)}."))
        for check in (*CHECKS, *more):
            findings.extend(check(client, settings))
        findings.extend(_other_masters(client, settings, findings))
    except redis.exceptions.ClusterDownError as error:
        findings.append(_unreachable(client, settings, error))
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        findings.append(_unreachable(client, settings, error))
    except redis.exceptions.MovedError:
        pass  # A server of a Cluster, asked as if it were alone: a check has said so.
    except redis.ResponseError as error:  # an ACL forbids a command
        findings.append(_refused(client, settings, error))
    return findings


def place(client: redis.Redis, settings: Settings) -> str:
    """Return where the store is, without secrets."""
    if settings.redis_use_sentinel:
        nodes = ",".join(f"{host}:{port}" for host, port in settings.redis_sentinel_nodes)
        return f"sentinel://{nodes}/{settings.redis_sentinel_master_name}"
    if settings.redis_url:
        return safe_url(settings.redis_url)
    options: dict[str, Any] = client.connection_pool.connection_kwargs
    if path := options.get("path"):
        return f"unix://{path}"
    return f"redis://{options.get('host', 'localhost')}:{options.get('port', 6379)}/{options.get('db', 0)}"


def _unreachable(client: redis.Redis, settings: Settings, error: Exception) -> Finding:
    why = _why_not(settings, error)
    return Finding(
        "error",
        "reachability",
        f"Relier cannot reach Redis ({place(client, settings)}). Refusing to start.{why and ' ' + why}",
        f"{_one_line(error)} Start Redis, or correct RELIER_REDIS_URL and RELIER_REDIS_PASSWORD.",
    )


def _refused(client: redis.Redis, settings: Settings, error: redis.ResponseError) -> Finding:
    return Finding(
        "error",
        "permissions",
        f"Redis ({place(client, settings)}) refused a command that Relier needs. {_one_line(error)}",
        "Give its user the rights of a role: redis/users.acl. To look at the whole, use the viewer's.",
    )


def _why_not(settings: Settings, error: Exception) -> str:
    """Say what stands between here and the master, where Sentinels or a Cluster have to name it."""
    from relier.sentinel_checks import check_sentinels  # it needs findings

    if settings.redis_use_cluster:
        return _one_line(error)
    if not settings.redis_use_sentinel:
        return ""
    wrong = [finding.message for finding in check_sentinels(settings) if finding.level == "error"]
    return wrong[0] if wrong else "The master that the Sentinels name does not answer, or is none."


def _other_masters(client: redis.Redis, settings: Settings, known: list[Finding]) -> Iterator[Finding]:
    """Look at every master of a cluster, and tell what has not been told yet."""
    from relier.cluster_checks import masters_of  # it needs findings

    told = {(finding.name, finding.message) for finding in known}
    for where, master in masters_of(client):
        for check in (_eviction, _version, _role, _persistence):
            for finding in check(master, settings):
                if finding.level != "ok" and (finding.name, finding.message) not in told:
                    yield replace(finding, message=f"{finding.message} This is about {where}.")


def _cluster(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    from relier.cluster_checks import check_cluster  # it needs findings

    return check_cluster(client, settings)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text.rstrip('.')}."


def _version(client: redis.Redis, _: Settings) -> Iterator[Finding]:
    version = str(client.info("server").get("redis_version", "?"))
    missing = _missing_commands(client)
    if not _is_new_enough(version) or not _runs_scripts(client):
        message = f"Relier requires Redis 7.0 or newer (or Valkey), but got '{version}'."
        yield Finding("error", "version", message, "Upgrade the server.")
    elif missing:
        message = f"Redis lacks commands that Relier needs: {', '.join(missing)}."
        yield Finding("error", "commands", message, "Remove rename-command from its configuration, or upgrade it.")
    else:
        yield Finding("ok", "version", f"Version {version} knows every command needed.")


def _is_new_enough(version: str) -> bool:
    major = version.partition(".")[0]
    return not major.isdigit() or int(major) >= OLDEST_REDIS


def _runs_scripts(client: redis.Redis) -> bool:
    try:
        client.eval_ro(_PROBE, 0)
    except redis.exceptions.NoPermissionError:
        raise
    except redis.ResponseError:
        return False
    return True


def _missing_commands(client: redis.Redis) -> list[str]:
    try:
        known = client.execute_command("COMMAND INFO", *NEEDED_COMMANDS)
    except redis.ResponseError:
        return []  # managed servers may hide it; the scripts will tell
    return [name for name, entry in zip(NEEDED_COMMANDS, known, strict=False) if not entry]


def _eviction(client: redis.Redis, _: Settings) -> Iterator[Finding]:
    policy = _eviction_policy(client)
    if policy is None:
        message = "The eviction policy of Redis cannot be read."
        yield Finding("warning", "eviction policy", message, "Make sure that it is noeviction.")
    elif policy != "noeviction":
        message = f"Relier requires Redis maxmemory-policy='noeviction', but got '{policy}'."
        fix = "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in redis.conf."
        yield Finding("error", "eviction policy", message, fix)
    else:
        yield Finding("ok", "eviction policy", "Redis evicts nothing (noeviction).")


def _eviction_policy(client: redis.Redis) -> str | None:
    policy = client.info("memory").get("maxmemory_policy")
    if not policy:
        with contextlib.suppress(redis.ResponseError):  # Managed servers forbid it.
            policy = client.config_get("maxmemory-policy").get("maxmemory-policy")
    return str(policy) if policy else None


def _persistence(client: redis.Redis, _: Settings) -> Iterator[Finding]:
    state = client.info("persistence")
    if not state.get("aof_enabled"):
        message = "Redis runs without AOF: tasks that it accepted are lost when it restarts."
        fix = "redis-cli CONFIG SET appendonly yes, and the same in redis.conf."
        yield Finding("warning", "persistence", message, fix)
    elif state.get("aof_last_write_status", "ok") != "ok":
        message = "Redis fails to write its AOF."
        yield Finding("warning", "persistence", message, "Look at its log and at the free space of its disk.")
    else:
        yield Finding("ok", "persistence", "Redis keeps an AOF.")


def _role(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    if client.info("replication").get("role") == "slave":
        message = f"Redis ({place(client, settings)}) is a replica, which cannot be written to."
        fix = "Name the master, or let Sentinel find it (RELIER_REDIS_USE_SENTINEL)."
        yield Finding("error", "role", message, fix)


#: Producers with Relier learn the server's time; see `relier/server_clock.py`.
_CLOCK_FIX = (
    "Synchronise both clocks (NTP). rl queue purge judges what plain Dramatiq sends from such hosts by their clocks."
)


def _clock(client: redis.Redis, _: Settings) -> Iterator[Finding]:
    before = time.time()
    seconds, microseconds = client.time()
    difference = seconds + microseconds / 1e6 - (before + time.time()) / 2
    message = f"The clock of Redis differs from this host's by {difference:+.3f} s."
    if abs(difference) > CLOCK_TOLERANCE:
        yield Finding("warning", "clock", message, _CLOCK_FIX)
    else:
        yield Finding("ok", "clock", message)


def _kind(_: redis.Redis, settings: Settings) -> Iterator[Finding]:
    external = settings.redis_url or settings.redis_use_sentinel
    text = "An external Redis is used." if external else f"The embedded server is used ({settings.state_dir})."
    yield Finding("ok", "server", text)


#: In the order of the report; the first error is the one that refuses the start.
CHECKS: tuple[Check, ...] = (_cluster, _eviction, _version, _role, _persistence, _clock, _kind)
