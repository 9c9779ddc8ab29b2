"""Measure what a log line costs, and what binding a task to lines costs each run.

    python benchmarks/log_lines.py

Prints microseconds, the best of several rounds. The lines go to memory.
"""

from __future__ import annotations

import io
import logging
import timeit
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from relier import runs
from relier.logging import configure_logging
from relier.settings import Settings

RUN: Any = SimpleNamespace(
    task_id="5787ca4f-241f-48ce-a3e0-108c83f6320b",
    actor_name="charge",
    attempt=0,
    fence=1763600000123456,
    worker_id="web1:26122:9f3c1d2e4a",
)

log = logging.getLogger("shop.orders")


def line() -> None:
    log.info("An order of %d pieces came in.", 17)


def bind() -> None:
    runs.enter(RUN)
    runs.leave()


def measure(what: str, step: Callable[[], object], times: int = 5000) -> None:
    print(f"{what:<44}{min(timeit.repeat(step, number=times, repeat=9)) / times * 1e6:6.2f} µs")


def main() -> None:
    root = logging.getLogger()
    root.handlers, root.level = [logging.StreamHandler(io.StringIO())], logging.INFO
    root.handlers[0].setFormatter(logging.Formatter("[%(asctime)s] [%(name)s] [%(levelname)s] %(message)s"))
    measure("bind a task and unbind it", bind)
    measure("a line below the level", lambda: log.debug("hidden"))
    measure("a line by the standard library's formatter", line)
    for form in ("json", "console"):
        configure_logging(Settings(log_format=form, log_level="info"))
        measure(f"a line as {form}, outside a task", line)
        runs.enter(RUN)
        measure(f"a line as {form}, in a task", line)
        runs.leave()


if __name__ == "__main__":
    main()
