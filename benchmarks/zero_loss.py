"""Kill workers under load and account for every task.

    python -m benchmarks.zero_loss [--tasks 5000] [--kills 30] [--closes 0] [--outages 0]
                                   [--broker embedded|redis|two-redises|rabbitmq|quorum] [--resurrector]

Two to four worker processes run short tasks: sync, async, with a retry, with a callback. SIGKILLs are spread over the
work, and the dead are replaced at once, as a supervisor does. At the end exactly one commit per task must be accepted,
by the store's counters and its event stream, and the tasks' own effect log must explain every run beyond the first by
a kill, a failure, or a release (a claim whose reply was lost). On top come closes: every connection to the broker is
cut at once; and outages: store and broker in turn are frozen for as long as a socket's timeout, or killed and
restarted. Exit code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance.topologies import TOPOLOGIES, Ground, OwnServers
from tests.integration.harness import Effect, Harness
from tests.servers import Server
from tests.waiting import wait_until

FEWEST, MOST = 2, 4
#: Longest time (s) for all of it.
DEADLINE = 600.0
#: One task in so many fails once, and one has a callback, which is a task as well.
FLAKY, CALLING = 10, 10


@dataclass
class Onslaught:
    """One fleet under load that loses workers."""

    fleet: Harness
    ground: Ground
    tasks: int
    kills: int
    closes: int
    outages: int
    chance: random.Random
    closed: int = 0
    killed: dict[int, float] = field(default_factory=dict)
    _hurt: Server | None = None

    def run(self) -> list[str]:
        """Push everything, kill, and return what is wrong at the end."""
        pushed, calling = self._push()
        events = [self._kill_one] * self.kills + [self._close] * self.closes + [self._outage] * self.outages
        self.chance.shuffle(events)
        for number, strike in enumerate(events, 1):
            self._refill()
            self._wait_for(number * pushed // (len(events) + 1))
            strike()
        self._refill()
        counters = self.fleet.settle(pushed + calling, DEADLINE)
        findings = self._account(counters, pushed + calling)
        findings += self._events(counters)
        released = {event["task"] for event in self.fleet.store.events(100_000) if event["event"] == "released"}
        findings += unexplained(self.fleet.effects(), self.killed, released)
        return findings

    def _push(self) -> tuple[int, int]:
        actors, messages = self.fleet.actors, []
        calling = 0
        for number in range(self.tasks):
            if number % FLAKY == 0:
                messages.append(actors.flaky.message(1))
            elif number % CALLING == 1:
                messages.append(actors.short.message_with_options(args=(self.chance.random() / 10,), on_success="told"))
                calling += 1
            else:
                actor = self.chance.choice([actors.short, actors.ashort])
                messages.append(actor.message(self.chance.random() / 10))
        for i in range(0, len(messages), 500):
            self.fleet.broker.enqueue_many(messages[i : i + 500])
        return self.tasks, calling

    def _alive(self) -> list[int]:
        return [process.pid for process in self.fleet.processes if "worker" in process.log.name and not process.is_over]

    def _refill(self) -> None:
        """Replace the dead; the number of processes varies."""
        for process in [p for p in self.fleet.processes if p.is_over]:
            process.end()
            self.fleet.processes.remove(process)
        wanted = self.chance.randint(FEWEST, MOST)
        for _ in range(wanted - len(self._alive())):
            self.fleet.worker(threads=4)

    def _kill_one(self) -> None:
        victim = self.chance.choice([p for p in self.fleet.processes if p.pid in self._alive()])
        victim.kill()
        victim.end()  # Dramatiq's main process, which would wait for a child that died while it started.
        self.killed[victim.pid] = time.monotonic()

    def _close(self) -> None:
        self.closed += wait_until(self.ground.cut, DEADLINE, "connections to cut")

    def _outage(self) -> None:
        store, broker = self.ground.store, self.ground.broker
        server = self._hurt = store if self._hurt is broker else broker
        if self.chance.random() < 0.5:
            server.stop()
            time.sleep(self.fleet.settings.redis_socket_timeout)
            server.cont()
        else:
            server.kill()
            time.sleep(1.0)
            server.restart()

    def _wait_for(self, completed: int) -> None:
        wait_until(
            lambda: self.fleet.store.counters().get("completed", 0) >= completed,
            DEADLINE,
            f"{completed} completed tasks",
        )

    def _account(self, counters: dict[str, int], expected: int) -> list[str]:
        findings = []
        for name in ("accepted", "completed"):
            if counters.get(name, 0) != expected:
                findings.append(f"{name}: {counters.get(name, 0)} instead of {expected}")
        ended = {effect.task for effect in self.fleet.effects() if effect.what in ("ran", "told")}
        if len(ended) != expected:
            findings.append(f"{len(ended)} tasks left an effect instead of {expected}")
        return findings

    def _events(self, counters: dict[str, int]) -> list[str]:
        """The stream must tell the same story as the counters, with nothing in it that must not happen."""
        events = Counter(event["event"] for event in self.fleet.store.events(100_000))
        findings = [f"event: {name}" for name in ("store lost data", "unknown copy", "dead") if events[name]]
        if events["crashed"] != counters.get("crashes", 0):
            findings.append(f"{events['crashed']} crash events, {counters.get('crashes', 0)} counted")
        if events["refused"] != counters.get("refused", 0):
            findings.append(f"{events['refused']} refusals, {counters.get('refused', 0)} counted")
        return findings


def unexplained(effects: list[Effect], killed: dict[int, float], released: set[str]) -> list[str]:
    """Return every run beyond a task's first whose predecessor neither failed, nor was released, nor was killed."""
    runs: dict[str, dict[int, list[Effect]]] = defaultdict(dict)
    for effect in effects:
        runs[effect.task].setdefault(effect.fence, []).append(effect)
    found = []
    for task, by_fence in runs.items():
        ordered = [by_fence[fence] for fence in sorted(by_fence)]
        for earlier, later in itertools.pairwise(ordered):
            first, last = earlier[0], earlier[-1]
            if later[0].attempt > first.attempt:
                continue
            if task not in released and last.mono > killed.get(first.pid, float("-inf")):
                found.append(f"task {task} ran again after {last}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--closes", type=int, default=0)
    parser.add_argument("--outages", type=int, default=0)
    parser.add_argument("--broker", choices=tuple(TOPOLOGIES), default="embedded")
    parser.add_argument("--resurrector", action="store_true")
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.randrange(10**6)
    with tempfile.TemporaryDirectory(prefix="rl-zero-loss-") as folder, closing(OwnServers()) as servers:
        ground = TOPOLOGIES[args.broker].prepare(servers, Path(folder))
        with closing(ground.fleet(ground.store, Path(folder))) as fleet:
            if args.resurrector:
                fleet.resurrector().wait_ready()
            start = time.monotonic()
            chance = random.Random(seed)
            onslaught = Onslaught(fleet, ground, args.tasks, args.kills, args.closes, args.outages, chance)
            findings = onslaught.run()
            summary = _summary(fleet, onslaught, time.monotonic() - start)
    print(f"seed {seed}, {args.broker} ({ground.broker.description}): {summary}")
    for finding in findings:
        print(f"WRONG: {finding}")
    print("exactly one commit per task" if not findings else "NOT as promised")
    sys.exit(bool(findings))


def _summary(fleet: Harness, onslaught: Onslaught, seconds: float) -> str:
    count = Counter(fleet.store.counters())
    runs = len({(effect.task, effect.fence) for effect in fleet.effects()})
    return (
        f"{count['accepted']} tasks, {len(onslaught.killed)} SIGKILLs, {onslaught.closes} times every connection to the"
        f" broker cut ({onslaught.closed} in all), {onslaught.outages} outages, {runs} runs in {seconds:.0f} s:"
        f" {count['completed']} completed, {count['dead']} dead, {count['discarded']} discarded;"
        f" {count['crashes']} runs crashed, {count['failed']} failed, {count['replays']} hooks replayed,"
        f" {count['published']} copies published, {count['released']} released, {count['refused']} commits refused"
    )


if __name__ == "__main__":
    main()
