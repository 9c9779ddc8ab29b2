"""Measure a large backlog in the due index: 100,000 records due at once, 1,000,000 delayed tasks.

    python -m benchmarks.backlog [--only due|delayed] [--due 100000] [--delayed 1000000] [--broker redis|rabbitmq]
                                 [--server embedded|redis]

`due`: everything becomes due at the same moment, for four workers with 8 threads. One of them is killed in the middle,
with a task that it runs; the time is that until this task runs again. `delayed`: tasks are delayed by an hour, with two
workers and a resurrector there. Exit code 1 when a task does not run exactly once, when the death is noticed later than
the bound, when a worker's memory grows by more than 20 MB, or when a script takes longer than 5 ms.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fleets import a_fleet
from benchmarks.slow_scripts import SlowScripts
from relier.envelope import stamp_first_hand, stamp_of
from relier.sending import sending_of
from tests import sources
from tests.integration.harness import Harness, Process
from tests.waiting import wait_until

BATCH = 1000
#: A death among 100,000 due tasks is declared within this time (s), and its orphan runs again.
NOTICED, AGAIN = 1.0, 3.0
#: Most bytes by which a worker's memory may grow while others delay a million tasks.
GROWTH = 20 * 2**20
HOUR = 3600.0


def delay(fleet: Harness, tasks: int, seconds: Callable[[], float]) -> float:
    """Let the store take custody of delayed tasks, as `send_with_options(delay=)` does; returns the seconds it took."""
    start = time.monotonic()
    for done in range(0, tasks, BATCH):
        messages = (stamp_first_hand(fleet.actors.noop.message(), 1) for _ in range(min(BATCH, tasks - done)))
        batch = [sending_of(fleet.broker, message, stamp_of(message), fleet.settings) for message in messages]
        wait = seconds()
        fleet.store.tasks.schedule_many((sending, wait) for sending in batch)
    return time.monotonic() - start


def memory(process: Process) -> int:
    """Return the resident bytes of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def used(fleet: Harness) -> int:
    info: Any = fleet.store.client.info("memory")
    return int(info["used_memory"])


def watch_scripts(fleet: Harness) -> SlowScripts:
    return SlowScripts(fleet.store.client, getattr(fleet.server, "pid", None))


def due_at_once(fleet: Harness, tasks: int) -> bool:
    """Let everything become due at the same moment; kill a worker in the middle."""
    ahead = max(15.0, tasks / 4000)
    moment = time.monotonic() + ahead
    took = delay(fleet, tasks, lambda: moment - time.monotonic())
    fleet.resurrector()
    workers = fleet.workers(4, threads=8)
    for worker in workers:
        worker.wait_settled_in()
    slow = watch_scripts(fleet)
    victim_task = fleet.actors.gated.push(fleet.gate()).id
    wait_until(lambda: fleet.effects("began", victim_task), 30, "the task that will lose its worker")
    victim = fleet.process_of(fleet.effects("began", victim_task)[0].pid)
    identity = victim.identity
    completed = lambda: fleet.store.counters().get("completed", 0)  # noqa: E731
    wait_until(lambda: completed() >= tasks // 4, ahead + 120, "a quarter of the completions")
    killed, before = time.monotonic(), completed()
    victim.kill()
    wait_until(lambda: identity not in fleet.store.fleet.workers(), 60, "the death")
    noticed = time.monotonic() - killed
    wait_until(lambda: len(fleet.effects("began", victim_task)) > 1, 120, "its task's next run")
    again = fleet.effects("began", victim_task)[1].mono - killed
    in_flood = completed() < tasks - BATCH
    fleet.open_gate()
    wait_until(lambda: completed() > tasks, 600, "every completion")
    seconds = time.monotonic() - moment
    print(f"{tasks} tasks due at once (taken in {took:.0f} s), 4 workers: done after {seconds:.1f} s;", flush=True)
    print(f"  a death after {before} tasks declared after {noticed:.2f} s, its task ran again after {again:.2f} s")
    quick = slow.report()
    counters = fleet.settle(tasks + 1, 60)
    once = counters["completed"] == tasks + 1
    if not in_flood:
        print("  the death was not in the flood: choose more tasks")
    return quick and once and in_flood and noticed <= NOTICED and again <= AGAIN


def delayed(fleet: Harness, tasks: int) -> bool:
    """Delay tasks by an hour under the eyes of workers and a resurrector."""
    processes = [*fleet.workers(2, threads=8), fleet.resurrector()]
    for process in processes:
        process.wait_settled_in()
    delay(fleet, BATCH, lambda: HOUR)  # Every shard's keys exist from now on.
    slow = watch_scripts(fleet)
    bytes_before, before = used(fleet), [memory(process) for process in processes]
    took = delay(fleet, tasks, lambda: HOUR)
    time.sleep(5)  # A few sweeps over all of it.
    grown = max(memory(process) - was for process, was in zip(processes, before, strict=True))
    each = (used(fleet) - bytes_before) / tasks
    body = len(fleet.store.records([next(iter(_some(fleet)))]).popitem()[1].body)
    print(f"{tasks} delayed tasks, taken in {took:.0f} s: {each:.0f} bytes each in Redis, {body} of them the message;")
    print(f"  the memory of a worker or resurrector grew by {grown / 2**20:.1f} MB at most", flush=True)
    waiting = fleet.store.live()["due"] == tasks + BATCH
    return slow.report() and waiting and grown <= GROWTH


def _some(fleet: Harness) -> list[str]:
    key = fleet.store.keys.shard(0, "")[1]
    ids: Any = fleet.store.runner.command("ZRANGE", key, 0, 0)
    return [task_id.decode() for task_id in ids]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("due", "delayed"))
    parser.add_argument("--due", type=int, default=100_000)
    parser.add_argument("--delayed", type=int, default=1_000_000)
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    parser.add_argument("--server", choices=sources.STORES, default="redis")
    args = parser.parse_args()
    kept = True
    if args.only != "delayed":
        with a_fleet(args.broker, args.server) as fleet:
            kept &= due_at_once(fleet, args.due)
    if args.only != "due":
        with a_fleet(args.broker, args.server) as fleet:
            kept &= delayed(fleet, args.delayed)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
