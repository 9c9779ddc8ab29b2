"""Actors that take too long, or keep how far they have come."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from dramatiq import Broker

from relier import StaleFenceError, TaskContext, rl_actor
from tests.integration.actors import note


class LimitActors:
    """They stand beside the others, on the same broker."""

    def __init__(self, broker: Broker) -> None:
        self.resuming: Any = rl_actor(resuming, broker=broker)
        self.aresuming: Any = rl_actor(aresuming, broker=broker)
        self.stepping: Any = rl_actor(stepping, broker=broker)
        self.late: Any = rl_actor(late, broker=broker, soft_timeout=0.5, hard_timeout=2, on_soft_timeout=told)
        self.frozen: Any = rl_actor(frozen, broker=broker, hard_timeout=10)


def _is_open(gate: str) -> bool:
    return Path(gate).exists()


def told(ctx: TaskContext) -> None:
    note("soft", ctx.partial_result)


def resuming(gate: str, size: int, ctx: TaskContext) -> None:
    """Keep something of that size, then run until the gate is open."""
    note("began", ctx.partial_result)
    ctx.set_partial_sync({"run": ctx.resurrection_count, "data": "x" * size})
    note("kept")
    while not _is_open(gate):
        time.sleep(0.005)
    note("ran", ctx.partial_result)


async def aresuming(gate: str, size: int, ctx: TaskContext) -> None:
    note("began", ctx.partial_result)
    await ctx.set_partial({"run": ctx.resurrection_count, "data": "x" * size})
    note("kept")
    while not _is_open(gate):
        await asyncio.sleep(0.005)
    note("ran", ctx.partial_result)


def stepping(steps: int, size: int, ctx: TaskContext) -> None:
    """Keep each step that is done."""
    begin = ctx.partial_result["step"] if ctx.partial_result else 0
    note("began", begin)
    for step in range(begin, steps):
        ctx.set_partial_sync({"step": step + 1, "data": "x" * size})
    note("ran", begin)


async def late(gate: str, how: str, ctx: TaskContext) -> str:
    """Take longer than the limit, until the gate is open: `waits`, `swallows` the cancellation, `blocks` the loop."""
    note("began", ctx.partial_result)
    if ctx.partial_result is not None:
        note("ran", ctx.partial_result)
        return "in time"
    await ctx.set_partial({"page": 5})
    if how == "blocks":
        while not _is_open(gate):
            time.sleep(0.005)
    while not _is_open(gate):
        try:
            await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            note("cancelled", how)
            if how == "waits":
                raise
    await _refused(ctx)
    return "too late"


async def _refused(ctx: TaskContext) -> None:
    while True:
        try:
            await ctx.set_partial({"page": 6})
        except StaleFenceError:
            note("stale")
            return
        except asyncio.CancelledError:  # It came as soon as the loop went on.
            continue


async def frozen(gate: str) -> None:
    note("began")
    while not _is_open(gate):
        await asyncio.sleep(0.005)
    note("ran")
