"""Measure how long a worker takes to end, whatever it is doing.

    python -m benchmarks.shutdown [--broker redis|rabbitmq|...] [--time 1.0] [--rounds 1]

The main process of a worker that runs one kind of task gets SIGTERM. It must end at most two seconds after its time
(`--time`, RELIER_GRACEFUL_SHUTDOWN_TIMEOUT) is up, with code 0 where everything could be handed over, and the task must
run again on another worker. Exit code 1 when it does not end in time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.conformance.topologies import TOPOLOGIES, Ground, OwnServers
from tests.integration.harness import Harness
from tests.waiting import wait_until

#: A worker has ended this long (s) after its time is up.
BOUND = 2.0
#: Longer than any round.
FOR_EVER = 600


#: What a worker may be doing.
KINDS = (
    "a plain function sleeps",
    "a plain function polls",
    "native code waits",
    "a coroutine waits",
    "a coroutine swallows its cancel",
    "a coroutine blocks the event loop",
)


@contextmanager
def _fleet(topology: str) -> Iterator[tuple[Harness, Ground]]:
    with tempfile.TemporaryDirectory(prefix="rl-shutdown-") as folder, closing(OwnServers()) as servers:
        ground = TOPOLOGIES[topology].prepare(servers, Path(folder))
        with closing(ground.fleet(ground.store, Path(folder))) as fleet:
            yield fleet, ground


def _push(fleet: Harness, kind: str) -> str:
    """Push a task that leaves the effect `began`; returns its id."""
    actors = fleet.actors
    pushes: dict[str, Callable[[], Any]] = {
        "a plain function sleeps": lambda: actors.short.push(FOR_EVER),
        "a plain function polls": lambda: actors.gated.push(fleet.gate("shut")),
        "native code waits": lambda: actors.blocked.push(_pipe(fleet), FOR_EVER),
        "a coroutine waits": lambda: actors.agated.push(fleet.gate("shut")),
        "a coroutine swallows its cancel": lambda: actors.stubborn.push(FOR_EVER),
        "a coroutine blocks the event loop": lambda: actors.blocking.push(FOR_EVER),
    }
    return str(pushes[kind]().id)


def _pipe(fleet: Harness) -> str:
    path = fleet.folder / f"pipe-{time.monotonic_ns()}"
    os.mkfifo(path)
    return str(path)


def end(fleet: Harness, kind: str, seconds: float) -> tuple[float, int, float]:
    """Return how long a busy worker took to end, its exit code, and how long after its time the task ran again."""
    worker = fleet.worker(threads=2, graceful_shutdown_timeout=seconds)
    worker.wait_settled_in()
    task = _push(fleet, kind)
    wait_until(lambda: fleet.effects("began", task), 60, "its start")
    other = fleet.worker(threads=2, graceful_shutdown_timeout=0)
    other.wait_settled_in()
    start = time.monotonic()
    worker.popen.terminate()
    code = worker.popen.wait(120)
    took = time.monotonic() - start
    wait_until(lambda: len(fleet.effects("began", task)) > 1, 60, "its second run")
    again = fleet.effects("began", task)[1].mono - start - seconds
    return took, code, again


def away(fleet: Harness, ground: Ground, seconds: float) -> tuple[float, int]:
    """Return how long a busy worker took to end while the store was away, and its exit code."""
    worker = fleet.worker(threads=2, graceful_shutdown_timeout=seconds)
    worker.wait_settled_in()
    task = fleet.actors.gated.push(fleet.gate("shut")).id
    wait_until(lambda: fleet.effects("began", task), 60, "its start")
    ground.store.stop()
    start = time.monotonic()
    worker.popen.terminate()
    code = worker.popen.wait(120)
    ground.store.cont()
    return time.monotonic() - start, code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=tuple(TOPOLOGIES), default="redis")
    parser.add_argument("--time", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    late = False
    for kind in KINDS * args.rounds:
        with _fleet(args.broker) as (fleet, _):
            took, code, again = end(fleet, kind, args.time)
        late |= took > args.time + BOUND or code != 0
        print(f"{kind}: ended after {took:.2f} s with code {code}; ran again {again:+.2f} s", flush=True)
    with _fleet(args.broker) as (fleet, ground):
        took, code = away(fleet, ground, args.time)
    late |= took > args.time + BOUND or code != 1
    print(f"the store hangs: ended after {took:.2f} s with code {code}", flush=True)
    sys.exit(1 if late else 0)


if __name__ == "__main__":
    main()
