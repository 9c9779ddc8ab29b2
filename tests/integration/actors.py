"""Actors of the integration tests. Each run leaves lines in an effect log, so that tests can explain every one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq import Broker
from dramatiq.middleware import SkipMessage

from relier import TaskContext, rl_actor, task_context

EFFECTS_VARIABLE = "RL_TEST_EFFECTS"


def note(what: str, detail: Any = None) -> None:
    """Append one line to the effect log; the kernel keeps it when the process is killed right after."""
    line = {
        "task": task_context.task_id,
        "actor": task_context.task_name,
        "fence": task_context.fence,
        "crashes": task_context.resurrection_count,
        "attempt": task_context.attempt,
        "pid": os.getpid(),
        "what": what,
        "detail": detail,
        "at": time.time(),
        "mono": time.monotonic(),
    }
    file = os.open(os.environ[EFFECTS_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
    finally:
        os.close(file)


class Actors:
    """All actors on one broker: in a worker on the global one, in a test on a broker of its own."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.add: Any = rl_actor(add, broker=broker, store_results=True)
        self.aadd: Any = rl_actor(aadd, broker=broker, store_results=True)
        self.plain: Any = dramatiq.actor(broker=broker, queue_name="default")(plain)
        self.aquick: Any = rl_actor(aquick, broker=broker)
        self.noop: Any = rl_actor(noop, broker=broker)
        self.short: Any = rl_actor(short, broker=broker)
        self.ashort: Any = rl_actor(ashort, broker=broker)
        self.nested: Any = rl_actor(nested, broker=broker, store_results=True)
        self.quick: Any = rl_actor(quick, broker=broker)
        self.flaky: Any = rl_actor(flaky, broker=broker, max_retries=5, min_backoff=1, max_backoff=20)
        self.broken: Any = rl_actor(broken, broker=broker, store_results=True)
        self.skipping: Any = rl_actor(skipping, broker=broker)
        self.gated: Any = rl_actor(gated, broker=broker)
        self.agated: Any = rl_actor(agated, broker=broker)
        self.chatty: Any = rl_actor(chatty, broker=broker)
        self.told: Any = rl_actor(told, broker=broker)
        self.poison: Any = rl_actor(poison, broker=broker, max_resurrections=2)
        self.notified: Any = rl_actor(notified, broker=broker, notify_shutdown=True)
        self.limited: Any = rl_actor(
            limited, broker=broker, time_limit=1000, max_retries=3, min_backoff=1, max_backoff=5
        )


def add(x: int, y: int, ctx: TaskContext) -> int:
    note("ran", [x, y, ctx.attempt])
    return x + y


async def aadd(x: int, y: int, ctx: TaskContext) -> int:
    await asyncio.sleep(0)
    note("ran", [x, y, ctx.attempt])
    return x + y


def plain(x: int) -> None:
    note("ran", x)


def quick(x: int) -> None:
    note("ran", x)


def noop() -> None:
    """Leave no trace."""


def short(seconds: float) -> None:
    note("began", seconds)
    time.sleep(seconds)
    note("ran", seconds)


async def ashort(seconds: float) -> None:
    note("began", seconds)
    await asyncio.sleep(seconds)
    note("ran", seconds)


def nested(x: int) -> int:
    """Call other actors as functions: no tasks of their own."""
    actors = dramatiq.get_broker().actors
    note("ran", x)
    return int(actors["add"](x, 1))


async def aquick(x: int) -> None:
    note("ran", x)


def flaky(failures: int) -> None:
    note("ran", failures)
    if task_context.attempt < failures:
        raise RuntimeError("not yet")


def broken(text: str = "broken") -> None:
    note("ran", text)
    raise TypeError(text)


def skipping() -> None:
    note("ran")
    raise SkipMessage("not wanted")


def gated(gate: str, error: str = "") -> None:
    """Run until the gate, a file, exists."""
    note("began", gate)
    while not Path(gate).exists():
        time.sleep(0.005)
    note("ran", gate)
    if error:
        raise RuntimeError(error)


async def agated(gate: str) -> None:
    note("began", gate)
    try:
        while not Path(gate).exists():
            await asyncio.sleep(0.005)
    except asyncio.CancelledError:
        note("cancelled", gate)
        raise
    note("ran", gate)


def chatty(kilobytes: int) -> None:
    """Log more than a pipe holds."""
    note("began")
    for i in range(kilobytes):
        logging.getLogger(__name__).warning("line %d %s", i, "x" * 1000)
    note("ran")


def told(*args: Any) -> None:
    """Follow others: as callback, pipeline stage, group completion."""
    note("told", list(args))


def poison(marker: str = "") -> None:
    note("began")
    os.abort()


def limited(gate: str) -> None:
    """Like gated, with a time limit of a second."""
    gated(gate)


def notified(gate: str) -> None:
    """Like gated, with a notice when the worker stops."""
    gated(gate)
