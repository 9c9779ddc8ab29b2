"""The actor whose worker is killed. Worker processes import it; it needs the environment that they are given."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import dramatiq

from relier import rl_actor
from relier.settings import get_settings
from relier_cli.bench.ground import KIND, MARKS, TIE, broker_of
from relier_cli.demo import tie

#: Longest time (s) that a run waits for its end.
LONGEST = 120.0

_kind, _marks = os.environ[KIND], Path(os.environ[MARKS])
tie.follow(os.environ[TIE])
if _kind == "plain":
    dramatiq.set_broker(broker_of(_kind, get_settings()))


def wait(name: str) -> None:
    """Note that this run began, and where; end once the file `<name>.end` is there."""
    with (_marks / name).open("a") as file:
        file.write(f"{os.getpid()} {time.monotonic()}\n")
    until = time.monotonic() + LONGEST
    while not (_marks / f"{name}.end").exists() and time.monotonic() < until:
        time.sleep(0.02)


declare: Any = dramatiq.actor if _kind == "plain" else rl_actor
sleeper: Any = declare(actor_name="bench_wait")(wait)
