"""Measure how soon thousands of orphans run again, who takes them, and how long scripts keep Redis busy.

    python -m benchmarks.orphans [--tasks 5000] [--workers 8] [--broker redis|rabbitmq] [--server embedded|redis]

Two workers hold all tasks: a fifth of them run, the others are prefetched. Both are killed at once (SIGKILL), and
idle workers with 8 threads each take over; each task takes them 50 ms. Exit code 1 when the last one begins later than
10 s after the kill, when one worker takes more than twice its share, when a script takes longer than 5 ms, or when a
task does not run to its end exactly once.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.fleets import a_fleet
from benchmarks.slow_scripts import SlowScripts
from tests import sources
from tests.integration.harness import Harness, Process
from tests.waiting import wait_until

OWNERS = 2
#: How long (s) an orphan takes when it runs again.
WORK = 0.05
BOUND = 10.0


def hold_all(fleet: Harness, tasks: int) -> tuple[list[Process], Path]:
    """Start the owners and give them everything; returns them, and what their tasks wait for."""
    never = fleet.folder / "never"
    os.mkfifo(never)
    fleet.environ["dramatiq_queue_prefetch"] = str(tasks // OWNERS)
    owners = fleet.workers(OWNERS, threads=tasks // 5 // OWNERS)
    del fleet.environ["dramatiq_queue_prefetch"]
    messages = [fleet.actors.blocked.message(str(never), WORK) for _ in range(tasks)]
    for i in range(0, tasks, 1000):
        fleet.broker.enqueue_many(messages[i : i + 1000])
    running = tasks // 5
    wait_until(lambda: len(fleet.effects_path.read_bytes().splitlines()) >= running, 120, f"{running} running tasks")
    wait_until(lambda: fleet.broker.depth("default") == 0, 60, "everything to be taken")
    return owners, never


def lose(fleet: Harness, tasks: int, workers: int) -> bool:
    """Kill the owners, wait until everything was taken over; returns whether the bounds were kept."""
    owners, never = hold_all(fleet, tasks)
    survivors = fleet.workers(workers, threads=8)
    for worker in survivors:
        worker.wait_settled_in()
    slow = SlowScripts(fleet.store.client, getattr(fleet.server, "pid", None))
    lost = {owner.pid for owner in owners}
    never.unlink()
    start = time.monotonic()
    for owner in owners:
        owner.kill()
    wait_until(lambda: fleet.store.counters().get("completed", 0) >= tasks, 120, "every completion")
    done = time.monotonic() - start
    taken = [effect for effect in fleet.effects("began") if effect.pid not in lost]
    seconds = max(effect.mono for effect in taken) - start
    share = Counter(effect.pid for effect in taken)
    first = min(effect.mono for effect in taken) - start
    print(f"{tasks} orphans ({tasks // 5} of them ran), {workers} workers: the first ran again after {first:.2f} s,")
    print(
        f"  the last after {seconds:.2f} s, all done after {done:.2f} s; most by one worker {max(share.values())}, ",
        end="",
    )
    print(f"least {min(share.get(w.pid, 0) for w in survivors)}, fair {tasks // workers}")
    quick = slow.report()
    counters = fleet.settle(tasks, 60)
    once = counters["completed"] == tasks and len(taken) == tasks
    if not once:
        print(f"  {counters['completed']} completed, {len(taken)} runs by the survivors")
    return quick and once and seconds <= BOUND and max(share.values()) <= 2 * tasks / workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    parser.add_argument("--server", choices=sources.STORES, default="redis")
    args = parser.parse_args()
    with a_fleet(args.broker, args.server) as fleet:
        kept = lose(fleet, args.tasks, args.workers)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
