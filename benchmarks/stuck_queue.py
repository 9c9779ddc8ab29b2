"""Measure how soon a task that cannot succeed is out of everybody's way, and what a job key costs a push.

    python -m benchmarks.stuck_queue [--tasks 200] [--broker redis|rabbitmq] [--server embedded|redis]

Each task raises `TypeError` and is pushed alone, with a job key, to an idle worker: how long from the push until it is
a dead letter, and until nothing of it is left in the broker. Then pushes with and without a job key, alternating; each
of the former ends the one before it. Exit code 1 when a task took longer than a second, or has not one run and one end.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.fleets import a_fleet
from tests import sources
from tests.integration.harness import Harness

BOUND = 1.0
#: Pushes in a row of each kind.
BATCH = 20


def fail_one_by_one(fleet: Harness, tasks: int) -> bool:
    """Push tasks that fail; returns whether the bounds were kept."""
    fleet.worker().wait_settled_in()
    dead, gone = [], []
    for number in range(tasks):
        start = time.monotonic()
        fleet.actors.checksum.push(number, "text")
        dead.append(_until(lambda n=number: fleet.store.live()["dead_letters"] > n, start))  # type: ignore[misc]
        gone.append(_until(lambda: fleet.held("default") == 0, start))
    for what, times in (("in the DLQ", dead), ("the queue empty", gone)):
        print(f"{what}: median {statistics.median(times) * 1e3:.0f} ms, at most {max(times) * 1e3:.0f} ms")
    counters = fleet.settle(tasks)
    runs = len(fleet.effects("began"))
    print(f"{tasks} tasks: {runs} runs, {counters['dead']} dead letters")
    return max(dead) <= BOUND and runs == counters["dead"] == tasks


def _until(condition: Callable[[], bool], start: float) -> float:
    while not condition() and time.monotonic() - start < 60:
        time.sleep(0.002)
    return time.monotonic() - start


def compare(fleet: Harness, pushes: int) -> None:
    plain, keyed = [], []
    for _ in range(pushes // BATCH):
        plain.append(_timed(lambda: fleet.actors.quick.push(1)))
        keyed.append(_timed(lambda: fleet.actors.newest.push("job")))
    without, with_key = statistics.median(plain), statistics.median(keyed)
    print(f"a push: {without:.0f} µs, with a job key {with_key:.0f} µs ({with_key - without:+.0f} µs)")


def _timed(push: Callable[[], Any]) -> float:
    start = time.perf_counter()
    for _ in range(BATCH):
        push()
    return (time.perf_counter() - start) / BATCH * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    parser.add_argument("--server", choices=sources.STORES, default="redis")
    args = parser.parse_args()
    with a_fleet(args.broker, args.server) as fleet:
        kept = fail_one_by_one(fleet, args.tasks)
        for process in fleet.processes:
            process.stop()
        compare(fleet, 2000)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
