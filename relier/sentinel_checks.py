"""Look at the Sentinels one by one: enough of them, all of one mind, and the master's name as they know it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import redis

from relier.preflight import Finding
from relier.settings import Settings
from relier.store.connection import no_retries

#: Fewer than so many cannot tell a dead master from one that they lost sight of.
FEWEST = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """What one Sentinel said; `trouble` when it said nothing."""

    node: str
    masters: dict[str, tuple[str, int]]
    #: Why a failover would not be agreed on; '' when it would.
    quorum: str = ""
    trouble: str = ""


def check_sentinels(settings: Settings) -> Iterator[Finding]:
    """Tell what is wrong with the Sentinels; nothing when none are used. Never raises for what it finds."""
    if not settings.redis_use_sentinel:
        return
    answers = [_ask(host, port, settings) for host, port in settings.redis_sentinel_nodes]
    heard = [answer for answer in answers if not answer.trouble]
    wrong = [*_number(answers), *_silent(answers, heard), *_master(heard, settings), *_quorum(heard, settings)]
    yield from wrong
    if not wrong:
        name = settings.redis_sentinel_master_name
        host, port = heard[0].masters[name]
        yield Finding("ok", "sentinel", f"{len(heard)} Sentinels agree that {name!r} is {host}:{port}.")


def _ask(host: str, port: int, settings: Settings) -> Answer:
    password, timeout = settings.redis_sentinel_password, settings.redis_connect_timeout
    client = redis.Redis(
        host=host,
        port=port,
        password=password.get_secret_value() if password else None,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=no_retries(),
        protocol=2,
    )
    node = f"{host}:{port}"
    try:
        with client:
            found: Any = client.sentinel_masters()
            masters = {str(name): (str(told["ip"]), int(told["port"])) for name, told in found.items()}
            return Answer(node, masters, _agreement(client, settings.redis_sentinel_master_name, masters))
    except (redis.RedisError, OSError) as error:
        return Answer(node, {}, trouble=" ".join(str(error).split()).rstrip(".") or type(error).__name__)


def _agreement(client: redis.Redis, name: str, masters: dict[str, tuple[str, int]]) -> str:
    if name not in masters:
        return ""
    try:
        client.execute_command("SENTINEL CKQUORUM", name)
    except redis.ResponseError as error:
        return " ".join(str(error).split())
    return ""


def _number(answers: list[Answer]) -> Iterator[Finding]:
    if len(answers) < FEWEST:
        message = f"RELIER_REDIS_SENTINEL_NODES names {len(answers)}; a majority that survives one needs {FEWEST}."
        yield Finding("warning", "sentinel", message, "Run three Sentinels on three hosts, and name them all.")


def _silent(answers: list[Answer], heard: list[Answer]) -> Iterator[Finding]:
    for answer in answers:
        if answer.trouble:
            level = "warning" if heard else "error"
            message = f"The Sentinel {answer.node} does not answer: {answer.trouble}."
            fix = "Start it, or correct RELIER_REDIS_SENTINEL_NODES and RELIER_REDIS_SENTINEL_PASSWORD."
            yield Finding(level, "sentinel", message, fix)  # type: ignore[arg-type]


def _master(heard: list[Answer], settings: Settings) -> Iterator[Finding]:
    name = settings.redis_sentinel_master_name
    for answer in heard:
        if name not in answer.masters:
            close = difflib.get_close_matches(name, answer.masters, n=1)
            known = f"; did you mean {close[0]!r}?" if close else f"; it knows {', '.join(answer.masters) or 'none'}."
            message = f"The Sentinel {answer.node} knows no master {name!r}{known}"
            yield Finding("error", "sentinel", message, "Correct RELIER_REDIS_SENTINEL_MASTER_NAME.")
    places = {answer.masters[name] for answer in heard if name in answer.masters}
    if len(places) > 1:
        told = ", ".join(f"{host}:{port}" for host, port in sorted(places))
        message = f"The Sentinels do not agree on the master {name!r}: {told}."
        yield Finding("error", "sentinel", message, "Wait for a failover to end; else they watch different masters.")


def _quorum(heard: list[Answer], settings: Settings) -> Iterator[Finding]:
    for answer in heard:
        if answer.quorum:
            message = f"No failover of {settings.redis_sentinel_master_name!r} would be agreed on: {answer.quorum}"
            yield Finding("error", "sentinel", message, "Start more Sentinels, or correct the quorum in sentinel.conf.")
            return
