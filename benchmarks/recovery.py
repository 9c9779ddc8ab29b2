"""Measure how soon a dead worker's task runs again on an idle one, at default settings.

    python -m benchmarks.recovery [--kills 50] [--stops 3] [--broker embedded|redis|two-redises|rabbitmq|quorum]

One of two workers runs a task and is killed (SIGKILL), or frozen (SIGSTOP); the other one is idle. The time is that
from the signal to the first line of the task's second run. The signal comes at a random moment between two sweeps, else
each would come at the same one: it follows the replacement of the last victim, which followed a sweep. With a
resurrector process, and without: then the workers sweep, and about every other kill hits the one that does. Exit code 1
when p50 is above 0.4 s or p99 above 1.0 s.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from tests.conformance.topologies import TOPOLOGIES, OwnServers
from tests.integration.harness import Effect, Harness, Process
from tests.waiting import wait_until

P50, P99 = 0.4, 1.0


class Round:
    """One fleet of two workers that loses one after the other."""

    def __init__(self, fleet: Harness, dedicated: bool) -> None:
        self.fleet = fleet
        self.number = 0
        if dedicated:
            fleet.resurrector()
            wait_until(lambda: any(v.startswith("r|") for v in fleet.store.fleet.leases().values()), 20, "its lease")
        self.workers = fleet.workers(2)

    def lose_one(self, number: signal.Signals, timeout: float) -> tuple[float, bool]:
        """Signal a busy worker; returns the seconds until its task runs again, and whether it was the sweeping one."""
        for worker in self.workers:
            worker.wait_settled_in()
        self.number += 1
        gate = str(self.number)
        task = self.fleet.actors.gated.push(self.fleet.gate(gate)).id
        victim = self.fleet.process_of(self._began(task, 1, 10)[0].pid)
        time.sleep(random.uniform(0, self.fleet.settings.resurrection_check_interval))
        sweeps = victim.identity in self.fleet.store.fleet.leases().get("watch", "")
        start = time.monotonic()
        victim.signal(number)
        again = self._began(task, 2, timeout)[1].mono
        self.fleet.open_gate(gate)
        self._replace(victim)
        return again - start, sweeps

    def _began(self, task: str, count: int, timeout: float) -> list[Effect]:
        wait_until(lambda: len(self.fleet.effects("began", task)) >= count, timeout, f"run {count}")
        return self.fleet.effects("began", task)

    def _replace(self, victim: Process) -> None:
        victim.end()
        self.fleet.processes.remove(victim)
        self.workers.remove(victim)
        self.workers.append(self.fleet.worker())


def measure(topology: str, dedicated: bool, kills: int, stops: int) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="rl-recovery-") as folder, closing(OwnServers()) as servers:
        ground = TOPOLOGIES[topology].prepare(servers, Path(folder))
        with closing(ground.fleet(ground.store, Path(folder))) as fleet:
            fleet_round = Round(fleet, dedicated)
            lost = [fleet_round.lose_one(signal.SIGKILL, 30) for _ in range(kills)]
            frozen = [fleet_round.lose_one(signal.SIGSTOP, 60)[0] for _ in range(stops)]
            fleet.settle(kills + stops, 60)
    times = sorted(seconds for seconds, _ in lost)
    who = "with a resurrector" if dedicated else "without a resurrector"
    print(f"{who}, {len(times)} SIGKILLs: {_summary(times)}", flush=True)
    if not dedicated:
        sweeping = sorted(seconds for seconds, sweeps in lost if sweeps)
        print(f"  of these {len(sweeping)} of the sweeping worker: {_summary(sweeping)}", flush=True)
    if frozen:
        ttl = fleet.settings.heartbeat_ttl
        print(f"  {len(frozen)} SIGSTOPs (beat TTL {ttl:g} s): {_summary(sorted(frozen))}", flush=True)
    return times


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _summary(ordered: list[float]) -> str:
    if not ordered:
        return "none"
    return f"p50 {statistics.median(ordered):.3f} s, p99 {_percentile(ordered, 0.99):.3f} s, max {ordered[-1]:.3f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--stops", type=int, default=3)
    parser.add_argument("--broker", choices=tuple(TOPOLOGIES), default="embedded")
    parser.add_argument("--only", choices=("resurrector", "workers"))
    args = parser.parse_args()
    late = False
    for name, dedicated in (("resurrector", True), ("workers", False)):
        if args.only in (None, name):
            times = measure(args.broker, dedicated, args.kills, args.stops)
            late |= statistics.median(times) > P50 or _percentile(times, 0.99) > P99
    sys.exit(1 if late else 0)


if __name__ == "__main__":
    main()
