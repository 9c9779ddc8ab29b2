"""Actors whose code makes spans of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq import Broker
from opentelemetry import trace

from relier import TaskContext, rl_actor
from tests.integration.actors import note

tracer = trace.get_tracer("shop")
log = logging.getLogger("shop")


class TracingActors:
    """They stand beside the others, on the same broker."""

    def __init__(self, broker: Broker) -> None:
        self.step: Any = rl_actor(step, broker=broker, store_results=True)
        self.astep: Any = rl_actor(astep, broker=broker)
        self.shaky: Any = rl_actor(shaky, broker=broker, max_retries=3, min_backoff=1, max_backoff=2)
        self.pushing: Any = rl_actor(pushing, broker=broker)
        self.slow: Any = rl_actor(slow, broker=broker)
        self.report_on: Any = rl_actor(report_on, broker=broker, job_key="report")


def step(secret: str) -> str:
    with tracer.start_as_current_span("inner"):
        log.info("in a span")
    return secret


async def astep(secret: str) -> None:
    with tracer.start_as_current_span("outer"):
        await asyncio.gather(_aside(), asyncio.to_thread(_in_thread))


async def _aside() -> None:
    with tracer.start_as_current_span("aside"):
        await asyncio.sleep(0)


def _in_thread() -> None:
    with tracer.start_as_current_span("in thread"):
        pass


def shaky(secret: str, ctx: TaskContext) -> None:
    if ctx.attempt == 0:
        try:
            raise KeyError(secret)
        except KeyError as error:
            raise ConnectionError(f"refused: {secret}") from error


def pushing(secret: str) -> None:
    ACTORS.step.push(secret)


def report_on(secret: str) -> None:
    """Have a job key, which the store takes custody for."""


def slow(gate: str, ctx: TaskContext) -> None:
    """Keep a checkpoint, then run until the gate opens."""
    ctx.set_partial_sync({"secret": gate})
    note("began")
    while not Path(gate).exists():
        time.sleep(0.01)


if dramatiq.broker.global_broker is not None:  # In a worker, or a producer.
    ACTORS = TracingActors(dramatiq.get_broker())
