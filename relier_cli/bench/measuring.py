"""What is measured: pairs of the same work, plain Dramatiq first, then Relier, one after the other."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from relier.errors import RelierError
from relier_cli.bench.ground import Ground
from relier_cli.bench.recovery import Pair
from relier_cli.demo.environment import command

KINDS = ("plain", "relier")
#: How many messages a worker fetches ahead: Dramatiq's default, where its consumer sleeps when it is full, and one
#: where the processor is the limit.
PREFETCHES: dict[str, dict[str, str]] = {"default": {}, "200": {"dramatiq_queue_prefetch": "200"}}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same work done by both, pair by pair; rates are tasks a second."""

    plain: list[float]
    relier: list[float]

    @property
    def ratios(self) -> list[float]:
        return sorted(ours / theirs for theirs, ours in zip(self.plain, self.relier, strict=True))

    def data(self) -> dict[str, float]:
        ratios = self.ratios
        return {
            "plain": round(statistics.median(self.plain), 1),
            "relier": round(statistics.median(self.relier), 1),
            "ratio": round(statistics.median(ratios), 3),
            "lowest_ratio": round(ratios[0], 3),
            "highest_ratio": round(ratios[-1], 3),
        }


@dataclass(slots=True)
class Recovery:
    """How soon (s) the task of a killed worker ran again."""

    relier: list[float] = field(default_factory=list)
    #: None: it had not run again after `waited` seconds.
    plain: float | None = None
    waited: float = 0.0

    def data(self) -> dict[str, float | int | bool | None]:
        median = statistics.median(self.relier)
        plain = self.waited if self.plain is None else self.plain
        return {
            "relier": round(median, 3),
            "slowest": round(max(self.relier), 3),
            "kills": len(self.relier),
            "plain": None if self.plain is None else round(self.plain, 3),
            "plain_waited": round(self.waited, 3),
            "ratio": round(plain / median, 1),
            "at_least": self.plain is None,
        }


class Measuring:
    """Measures on one ground.

    Parameters:
      ground: where.
      check: raises when the user wants it to end.
      say: is told what is being done.
    """

    def __init__(self, ground: Ground, check: Callable[[], None], say: Say) -> None:
        self._ground = ground
        self._check = check
        self._say = say

    def rates(self, prefetch: str, tasks: int, rounds: int) -> dict[str, Comparison]:
        """Compare enqueueing and running, in processes of their own."""
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
        for number in range(rounds):
            self._say(f"{tasks} tasks that do nothing, prefetch {prefetch}, pair {number + 1} of {rounds}")
            for kind in KINDS:
                found[kind].append(self._run(kind, prefetch, tasks))
        return {
            what: Comparison(*([measured[what] for measured in found[kind]] for kind in KINDS))
            for what in ("enqueue", "throughput")
        }

    def _run(self, kind: str, prefetch: str, tasks: int) -> dict[str, float]:
        environment = self._ground.environment(kind, **PREFETCHES[prefetch])
        child = subprocess.Popen(
            command("relier_cli.bench.child", str(tasks)),
            env=environment,
            cwd=self._ground.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            while True:
                self._check()
                try:
                    out, err = child.communicate(timeout=0.1)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:
            child.kill()
            child.wait()
        if child.returncode:
            raise RelierError(f"A process of the benchmark failed ({kind}):\n{err[-2000:]}")
        measured: dict[str, float] = json.loads(out.splitlines()[-1])
        return measured

    def recovery(self, kills: int, patience: float) -> Recovery:
        """Kill a worker of plain Dramatiq, and some of Relier; the former's recovery is waited for so long (s)."""
        found = Recovery()
        self._say("a worker of plain Dramatiq is killed")
        plain = Pair(self._ground, "plain", self._check)
        loss = plain.lose_one()
        ours = Pair(self._ground, "relier", self._check)
        for number in range(kills):
            self._say(f"a worker of Relier is killed, {number + 1} of {kills}")
            found.relier.append(ours.recover(ours.lose_one()))
        ours.close()
        self._say(f"waiting for plain Dramatiq, {patience:g} s after the kill at most")
        while loss.after() is None and time.monotonic() < loss.killed_at + patience:
            self._check()
            time.sleep(0.02)
        found.plain, found.waited = loss.after(), time.monotonic() - loss.killed_at
        plain.close()
        return found
