"""Restart four workers one by one under load, again and again: what does a hand-over cost a task?

    python -m benchmarks.deploy [--rounds 20] [--broker embedded|redis|two-redises|rabbitmq|quorum]
                                [--workers 4] [--rate 40] [--time 1.0]

Each round restarts every worker of `rl worker start`, one after the other, as `rl worker restart --wait` does.
Meanwhile tasks are pushed: most end within the time (`--time`, RELIER_GRACEFUL_SHUTDOWN_TIMEOUT) that a stopping
worker gives them, some take longer and are handed over. At the end every task must have been committed exactly once, no
failure and no crash counted. Reported are the longest time between a hand-over and the next run, and the longest time
for which a task waited for its first run. Exit code 1 when something was lost or committed twice, or one of these is
above 2 s.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from relier_cli.draining import order
from tests.conformance.topologies import TOPOLOGIES, OwnServers
from tests.integration.harness import Harness, Process
from tests.waiting import wait_until

#: Longest delay (s) that a hand-over may cause.
BOUND = 2.0
#: One task in so many takes longer than a stopping worker waits.
LONG = 10
#: Longest time (s) for one restart, and for the rest at the end.
PATIENCE = 120.0


@dataclass
class Deploy:
    """A supervised fleet under load whose workers are restarted.

    Parameters:
      fleet: nothing runs in it yet.
      workers: how many there are.
      rate: tasks pushed in a second.
      seconds: what a stopping worker gives its tasks.
    """

    fleet: Harness
    workers: int = 4
    rate: float = 40.0
    seconds: float = 1.0
    chance: random.Random = field(default_factory=lambda: random.Random(4))
    pushed: dict[str, float] = field(default_factory=dict)
    restarts: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def run(self, rounds: int) -> list[str]:
        """Restart every worker so many times; returns what is wrong at the end."""
        supervisor = self._start()
        load = threading.Thread(target=self._push, daemon=True)
        load.start()
        try:
            for _ in range(rounds):
                for worker in sorted(self.fleet.store.fleet.workers()):
                    order(self.fleet.store, worker, "restart", wait=True, timeout=PATIENCE)
                    self.restarts += 1
        finally:
            self._over.set()
            load.join()
        counters = self.fleet.settle(len(self.pushed), PATIENCE)
        supervisor.popen.terminate()
        supervisor.popen.wait(PATIENCE)
        return self._account(counters)

    def _start(self) -> Process:
        command = [sys.executable, "-c", "from relier_cli.app import main; main()", "worker", "start"]
        flags = ["--processes", str(self.workers), "--", "-t", "4"]
        options = {"graceful_shutdown_timeout": self.seconds}
        supervisor = self.fleet._start("supervisor", command + flags, "", options)
        wait_until(lambda: len(self.fleet.store.fleet.workers()) == self.workers, PATIENCE, "workers")
        return supervisor

    def _push(self) -> None:
        actors = self.fleet.actors
        while not self._over.wait(1 / self.rate):
            actor = self.chance.choice([actors.short, actors.ashort])
            longer = len(self.pushed) % LONG == 0
            takes = self.seconds + self.chance.random() if longer else self.chance.random() / 20
            at = time.time()
            self.pushed[actor.push(takes).id] = at

    def _account(self, counters: dict[str, int]) -> list[str]:
        findings = []
        for name in ("accepted", "completed"):
            if counters.get(name, 0) != len(self.pushed):
                findings.append(f"{name}: {counters.get(name, 0)} instead of {len(self.pushed)}")
        findings += [f"{name}: {counters[name]}" for name in ("crashes", "failed", "dead") if counters.get(name)]
        lost = set(self.pushed) - set(self.fleet.counted("ran"))
        return [*findings, *(f"{task} left no effect" for task in lost)]

    def delays(self) -> tuple[list[float], list[float]]:
        """Return the seconds from each hand-over to the next run, and from each push to the first, in order."""
        began = defaultdict(list)
        for effect in self.fleet.effects("began"):
            began[effect.task].append(effect.at)
        handed = [
            (event["task"], int(event["at"]) / 1e6)
            for event in self.fleet.store.events(100_000)
            if event["event"] == "handed over"
        ]
        again = [min(at for at in began[task] if at >= since) - since for task, since in handed]
        first = [min(began[task]) - at for task, at in self.pushed.items()]
        return sorted(again), sorted(first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--broker", choices=tuple(TOPOLOGIES), default="redis")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=40.0)
    parser.add_argument("--time", type=float, default=1.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rl-deploy-") as folder, closing(OwnServers()) as servers:
        ground = TOPOLOGIES[args.broker].prepare(servers, Path(folder))
        with closing(ground.fleet(ground.store, Path(folder))) as fleet:
            deploy = Deploy(fleet, args.workers, args.rate, args.time)
            findings = deploy.run(args.rounds)
            again, first = deploy.delays()
    print(f"{args.broker}: {deploy.restarts} restarts of {args.workers} workers, {len(deploy.pushed)} tasks")
    for what, times in (("from a hand-over to the next run", again), ("from a push to the first run", first)):
        if times:
            middle, last = times[len(times) // 2], times[-1]
            print(f"  {what}: {len(times)}, p50 {middle:.3f} s, longest {last:.3f} s", flush=True)
            findings += [f"{what}: {last:.3f} s"] if last > BOUND else []
    print("\n".join(findings) or "  nothing lost, nothing committed twice, nothing delayed by more than 2 s")
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
