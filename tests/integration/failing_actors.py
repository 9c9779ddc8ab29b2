"""Actors that fail: in every way that the failure table knows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydantic
from dramatiq import Broker, get_broker
from dramatiq.errors import RateLimitExceeded, Retry

from relier import TaskContext, rl_actor
from relier.objectives import late_from
from relier.runs import current
from tests.integration.actors import note

#: Milliseconds: so that a series takes no minutes. They leave the number of retries to the kind of the failure.
SOON: dict[str, Any] = {"min_backoff": 1, "max_backoff": 20}


class WrongShape(ValueError):
    """What an actor declares as never worth another try."""


class Unwelcome(Exception):
    """What an actor expects."""


class FailingActors:
    """They stand beside the others, on the same broker."""

    def __init__(self, broker: Broker) -> None:
        self.hopeless: Any = rl_actor(hopeless, broker=broker, deterministic=WrongShape, **SOON)
        self.passing: Any = rl_actor(passing, broker=broker, min_backoff=1, max_backoff=2000)
        self.unsure: Any = rl_actor(unsure, broker=broker, store_results=True, **SOON)
        self.counted: Any = rl_actor(unsure, actor_name="counted", broker=broker, max_retries=4, **SOON)
        self.asked: Any = rl_actor(
            unsure, actor_name="asked", broker=broker, retry_when=lambda retries, exc: retries < 4, **SOON
        )
        self.expecting: Any = rl_actor(expecting, broker=broker, throws=Unwelcome, max_retries=9, **SOON)
        self.outage: Any = rl_actor(outage, broker=broker, transient=OSError, max_retries=4, **SOON)
        self.overrunning: Any = rl_actor(overrunning, broker=broker, time_limit=500)
        self.hasty: Any = rl_actor(
            promising, actor_name="hasty", broker=broker, slo_target=0.9, slo_latency=0.001, deterministic=WrongShape
        )
        self.patient: Any = rl_actor(promising, actor_name="patient", broker=broker, slo_latency=3600)
        self.armed: Any = rl_actor(armed, broker=broker, store_results=True, **SOON)


#: Failures that are never worth another try, and how each comes about.
HOPELESS: dict[str, Callable[[], object]] = {
    "TypeError": lambda: b"".join(["text"]),  # type: ignore[list-item]
    "AttributeError": lambda: _raise(AttributeError("no such")),
    "NameError": lambda: no_such_name,  # type: ignore[name-defined] # noqa: F821
    "ModuleNotFoundError": lambda: __import__("no_such_module"),
    "NotImplementedError": lambda: _raise(NotImplementedError("later")),
    "KeyError": lambda: os.environ["NO_SUCH_VARIABLE"],
    "FileNotFoundError": lambda: Path("/no/such/file").read_text(),
    "JSONDecodeError": lambda: json.loads("{"),
    "UnicodeDecodeError": lambda: str(b"\xff", "utf-8"),
    "ValidationError": lambda: pydantic.TypeAdapter(int).validate_python("no number"),
    "WrongShape": lambda: _raise(WrongShape("no amount")),
}


def _raise(error: BaseException) -> None:
    raise error


def hopeless(how: str) -> None:
    note("ran", how)
    HOPELESS[how]()


class Busy(Exception):
    """An answer of a server that is asked too often."""

    response = SimpleNamespace(status_code=429, headers={"Retry-After": "0.7"})


#: Failures that pass.
PASSING: dict[str, Callable[[], BaseException]] = {
    "refused": lambda: ConnectionRefusedError("no route to db1"),
    "timeout": lambda: TimeoutError("after 5 s"),
    "busy": lambda: Busy("slow down"),
    "later": lambda: Retry("in a moment", delay=700),
    "limited": lambda: RateLimitExceeded("too many"),  # type: ignore[no-untyped-call]
}


def passing(how: str, times: int, ctx: TaskContext) -> None:
    """Fail so many times, then complete. What is not counted as an attempt is not seen here."""
    note("ran", [how, ctx.attempt])
    runs = int(how == "limited" and _runs_of(ctx.task_id) > times)
    if ctx.attempt < times and not runs:
        raise PASSING[how]()


def _runs_of(task: str) -> int:
    lines = Path(os.environ["RL_TEST_EFFECTS"]).read_text().splitlines()
    return sum(json.loads(line)["task"] == task for line in lines)


def unsure(texts: list[str], ctx: TaskContext) -> None:
    """Fail with one text after the other; complete when there is no text left."""
    note("ran", ctx.attempt)
    if ctx.attempt < len(texts):
        raise ValueError(texts[ctx.attempt].format(id(ctx)))


def expecting() -> None:
    note("ran")
    raise Unwelcome("as expected")


def outage() -> None:
    note("ran")
    raise PermissionError("the disk is away")


def overrunning() -> None:
    note("began")
    while True:
        time.sleep(0.01)


def promising(fails: bool = False) -> None:
    """Note how long (µs) after its push the task may complete, and take longer than a millisecond."""
    run = current.get()
    assert run is not None
    note("ran", late_from(get_broker(), run) - round(run.sending.created * 1e6))
    time.sleep(0.01)
    if fails:
        raise WrongShape("no amount")


def armed(marker: str, ctx: TaskContext) -> None:
    """Fail identically; the third failure finds the failpoint armed, which the first process to pass it disarms."""
    note("ran", ctx.attempt)
    if ctx.attempt == 2 and ctx.resurrection_count == 0:
        Path(marker).unlink()
    raise ValueError(f"no order {time.time_ns()}")
