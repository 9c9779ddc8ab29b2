"""The tasks of `rl chaos`, on a queue of their own: workers that allow no chaos never see them."""

from __future__ import annotations

import asyncio
import ctypes
import time
from collections.abc import Callable
from typing import Any

from dramatiq import Broker

from relier.actor import RelierActor
from relier.chaos.holding import Holding
from relier.context import task_context
from relier.installation import store_of
from relier.store.connection import UNAVAILABLE

#: The queue of all of them.
QUEUE = "relier.chaos"

#: Stays on the workers that the experiment names.
PROBE = "relier.chaos.probe"
#: Does nothing.
NOTHING = "relier.chaos.nothing"
#: Takes its time: a function that says nothing meanwhile, one that holds the interpreter, and two that have a limit.
REST = "relier.chaos.rest"
HOLD = "relier.chaos.hold"
OVERRUN = "relier.chaos.overrun"
OVERTIME = "relier.chaos.overtime"

#: The limits (s) of the last two: `hard_timeout` of a coroutine, `time_limit` of a function.
LIMIT = 1.0
#: How often (s) a probe asks whether it is still held.
ASK = 0.05
#: Longest time (s) for which any of them works, whatever it is told.
LONGEST = 600.0


def declare(broker: Broker) -> None:
    """Declare the actors on a broker that has Relier; a second call changes nothing."""
    if PROBE in broker.actors:
        return

    def probe(token: str, seconds: float) -> None:
        _probe(broker, token, seconds)

    _declare(broker, PROBE, probe)
    _declare(broker, NOTHING, nothing)
    _declare(broker, REST, rest)
    _declare(broker, HOLD, hold)
    _declare(broker, OVERRUN, overrun, hard_timeout=LIMIT)
    _declare(broker, OVERTIME, rest, time_limit=int(LIMIT * 1000))


def _declare(broker: Broker, name: str, fn: Callable[..., Any], **options: Any) -> None:
    RelierActor(fn, broker=broker, actor_name=name, queue_name=QUEUE, priority=0, options={"max_retries": 0, **options})


def _probe(broker: Broker, token: str, seconds: float) -> None:
    """Stay while the experiment holds this worker, at most `seconds`.

    A worker that is cut off ends it at once: what it reports then comes late, and must be refused.
    """
    holding = Holding(store_of(broker), token)
    end = time.monotonic() + min(seconds, LONGEST)
    try:
        holding.ran(task_context.task_id, task_context.worker_id, task_context.fence)
        while time.monotonic() < end and holding.holds(task_context.worker_id):
            time.sleep(ASK)
    except UNAVAILABLE:
        return


def nothing(*_: Any) -> None:
    """Do nothing."""


def rest(seconds: float) -> None:
    """Work for so long, and let other threads run."""
    end = time.monotonic() + min(seconds, LONGEST)
    while time.monotonic() < end:
        time.sleep(ASK)


def hold(seconds: float) -> None:
    """Hold the interpreter for so long in one call of native code: no other thread of the process runs."""
    ctypes.PyDLL(None).poll(None, 0, int(min(seconds, LONGEST) * 1000))


async def overrun(seconds: float) -> None:
    """Work longer than the limit."""
    await asyncio.sleep(min(seconds, LONGEST))
