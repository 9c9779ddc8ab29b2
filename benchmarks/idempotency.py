"""Submit one idempotent task thousands of times while workers are killed: exactly one run may complete.

    python -m benchmarks.idempotency [--broker redis|rabbitmq] [--submissions 2000] [--producers 4] [--workers 4]
                                     [--kills 10]

The producers submit as fast as they can. While the task runs, its worker is killed, again and again, and replaced;
then it may end, and the last kills hit any worker while the others are let go. At the end

- one run has completed: the task's own effect log has its last line; a run beside it, if any, was killed before its
  commit;
- every receipt returns that run's result;
- all other submissions completed without running, and each waited once, or once more for a worker that died with it;
- nobody polled: while all of them wait, the store gets no more calls than an idle fleet makes.

Exit code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.fleets import a_fleet
from relier import TaskReceipt
from tests.integration.harness import Harness, Process

#: Longest time (s) for each step.
DEADLINE = 300.0
#: How long (s) the store's calls are counted.
COUNTED = 10.0
#: Kills that come when the task has ended, or is about to.
LATE_KILLS = 2

_SUBMIT = """
with open({ids!r}, "w", buffering=1) as ids:
    for number in range({count}):
        print(a.once.push({gate!r}, number).id, file=ids)
"""


@dataclass
class Proof:
    """One fleet, one idempotent task, many submissions of it."""

    fleet: Harness
    submissions: int
    producers: int
    workers: int
    kills: int
    chance: random.Random
    killed: set[int] = field(default_factory=set)
    findings: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)

    def run(self) -> None:
        self.fleet.workers(self.workers, threads=4)
        idle = self._calls_per_second()
        producers = self._produce()
        for kill in range(1, self.kills - LATE_KILLS + 1):
            self._wait(lambda n=kill: len(self._began()) >= n, f"run {kill}")  # type: ignore[misc]
            self._kill(self.fleet.process_of(self._began()[-1]))
        assert [producer.popen.wait(DEADLINE) for producer in producers] == [0] * self.producers
        self._wait(lambda: len(self._began()) > self.kills - LATE_KILLS, "the last run")
        self._wait(lambda: self._count("duplicates_waited") >= self.submissions - 1, "all the others to wait")
        self._check_polling(idle)
        self._let_go()
        self._check_end()

    # -- steps --------------------------------------------------------------------------------------------------

    def _produce(self) -> list[Process]:
        share = self.submissions // self.producers
        return [
            self.fleet.producer(_SUBMIT.format(ids=str(file), count=share, gate=self.fleet.gate()))
            for file in self._files()
        ]

    def _files(self) -> list[Path]:
        return [self.fleet.folder / f"ids-{number}" for number in range(self.producers)]

    def _kill(self, victim: Process) -> None:
        self.killed.add(victim.pid)
        victim.kill()
        victim.end()
        self.fleet.processes.remove(victim)
        self.fleet.worker(threads=4)

    def _let_go(self) -> None:
        """Let the task end, and kill while the others are let go."""
        self._wait(lambda: len([p for p in self._alive() if p.pid]) == self.workers, "the replacements")
        start = time.monotonic()
        self.fleet.open_gate()
        for _ in range(LATE_KILLS):
            self._kill(self.chance.choice(self._alive()))
        self._wait(lambda: self._count("completed") >= self.submissions, "the end of all")
        self.figures.append(f"the last one ended {time.monotonic() - start:.1f} s after the gate was opened")

    def _alive(self) -> list[Process]:
        return [process for process in self.fleet.processes if "worker" in process.log.name and not process.is_over]

    def _began(self) -> list[int]:
        return [effect.pid for effect in self.fleet.effects("began")]

    def _count(self, name: str) -> int:
        return self.fleet.store.counters().get(name, 0)

    def _wait(self, condition: object, what: str) -> None:
        self.fleet.wait(condition, DEADLINE, what)  # type: ignore[arg-type]

    def _calls_per_second(self) -> float:
        """Count the scripts and commands that the store runs; those of one look at it are left out."""
        with self.fleet.server.client() as client:
            before = client.info("commandstats")
            time.sleep(COUNTED)
            after = client.info("commandstats")
        calls = sum(
            stats["calls"] - before.get(name, {"calls": 0})["calls"]
            for name, stats in after.items()
            if name not in ("cmdstat_info", "cmdstat_ping")
        )
        return float(calls) / COUNTED

    # -- what must be so ----------------------------------------------------------------------------------------

    def _check_polling(self, idle: float) -> None:
        waiting = self._calls_per_second()
        self.figures.append(f"{idle:.0f} commands a second in an idle fleet, {waiting:.0f} while all wait")
        # A thousand waiters that polled but once in ten seconds would make a hundred more.
        self._expect(waiting < idle * 1.5 + 50, "somebody polls")

    def _check_end(self) -> None:
        counters = self.fleet.settle(self.submissions, DEADLINE)
        ended = self.fleet.effects("ran")
        last = f"{ended[-1].task}/{ended[-1].fence}"
        unexplained = [effect for effect in ended[:-1] if effect.pid not in self.killed]
        hits, waited = counters.get("idempotency_hits", 0), counters.get("duplicates_waited", 0)
        self._expect(not unexplained, f"runs beside the one that completed: {unexplained}")
        self._expect(counters["completed"] == self.submissions, f"{counters['completed']} completed")
        self._expect(hits == self.submissions - 1, f"{hits} ended without running, instead of all but one")
        self._expect(not counters.get("dead") and not counters.get("discarded"), f"tasks were lost: {counters}")
        results = self._results()
        self._expect(set(results) == {last}, f"results {set(results)} instead of {last}")
        self.figures.append(
            f"{counters['accepted']} submissions, {len(self.killed)} SIGKILLs, {len(self._began())} runs begun,"
            f" {len(ended)} reached their end, {counters['completed'] - hits} completed; {waited} waits,"
            f" {counters.get('published', 0)} copies published, {len(results)} equal results"
        )

    def _results(self) -> list[str]:
        ids = [task for file in self._files() for task in file.read_text().split()]
        self._expect(len(set(ids)) == self.submissions, f"{len(set(ids))} receipts")
        broker = self.fleet.broker
        return [str(TaskReceipt.from_id(task, broker=broker).result(timeout=30)) for task in ids]

    def _expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.findings.append(otherwise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    parser.add_argument("--server", choices=("redis", "embedded"), default="redis", help="the store")
    parser.add_argument("--submissions", type=int, default=2000)
    parser.add_argument("--producers", type=int, default=4)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.randrange(10**6)
    if args.submissions % args.producers or args.kills <= LATE_KILLS:
        parser.error(f"each producer submits as many as the others, and there are more than {LATE_KILLS} kills")
    start = time.monotonic()
    with a_fleet(args.broker, args.server) as fleet:
        proof = Proof(fleet, args.submissions, args.producers, args.workers, args.kills, random.Random(seed))
        proof.run()
    print(f"seed {seed}, {args.broker}: {'; '.join(proof.figures)}; {time.monotonic() - start:.0f} s in all")
    for finding in proof.findings:
        print(f"WRONG: {finding}")
    print("one run completed, and all have its result" if not proof.findings else "NOT as promised")
    sys.exit(bool(proof.findings))


if __name__ == "__main__":
    main()
