"""`rl chaos network-partition --container`: the container of the Redis is away for all; is all well afterwards?"""

from __future__ import annotations

import threading
import time

from relier.chaos.actors import PROBE, QUEUE
from relier.store.connection import UNAVAILABLE
from relier_cli.chaos.containers import Away, Plan
from relier_cli.chaos.counting import Counting
from relier_cli.chaos.probes import Probes
from relier_cli.chaos.stage import Stage, insist_on_workers
from relier_cli.chaos.verdict import Steps, Verdict
from relier_cli.chaos.verify import check
from relier_cli.chaos.victims import until
from relier_cli.output import number


class Experiment:
    """One absence of a Redis.

    Parameters:
      container: its name.
      plan: how it is taken away, and put back.
    """

    def __init__(self, stage: Stage, container: str, plan: Plan, steps: Steps) -> None:
        self._stage = stage
        self._container = container
        self._plan = plan
        self._steps = steps
        self._findings: list[str] = []

    def run(self, seconds: float, within: float) -> Verdict:
        """Take it away while tasks run, put it back, and see them end and the account add up."""
        stage, willing = self._stage, insist_on_workers(self._stage)
        counting = Counting(stage, QUEUE, PROBE)
        with Probes(stage) as probes:
            probes.fill(willing)
            away_for, missed = self._away(seconds)
            back = self._await_answer(within)
            probes.holding.release()
            ended = back is not None and until(lambda: self._have_ended(probes, counting), within)
        if not missed:
            self._findings.append(f"Redis answered all the time: is {self._container} its container?")
        if back is None:
            self._findings.append(f"Redis did not answer within {within:g} s after it was put back.")
        elif not ended:
            left = len(probes.places) - counting["completed"]
            self._findings.append(f"{number(left, 'task')} that ran did not complete within {within:g} s.")
        checked = check(stage, self._steps, within) if back is not None else None
        self._findings += checked.findings if checked else []
        details = {
            "container": self._container,
            "cut_for": away_for,
            "answers_after": back,
            "probes": len(probes.places),
            "completed": counting["completed"],
            "verified": bool(checked and not checked.findings),
        }
        held = (
            f"{self._container} was away for {away_for:.1f} s; {number(len(probes.places), 'task')} that ran have"
            f" completed, and {checked.held if checked else ''}"
        )
        return Verdict("network-partition", held, self._steps, self._findings, details)

    def _away(self, seconds: float) -> tuple[float, bool]:
        """Take it away; returns for how long, and whether it was missed."""
        self._steps.begin()
        away = Away(self._plan, seconds)
        try:
            said = away.listen()
            if said != "away":
                self._findings.append(f"It could not be taken away: {said}.")
                return 0.0, True
            begun = time.monotonic()
            self._steps.note(f"{self._container} is away for {seconds:g} s")
            watch = _Missing(self._stage)
            said = away.listen()
            lasted = round(time.monotonic() - begun, 3)
            missed = watch.end()
        finally:
            said = away.end() or "nothing"
        self._steps.note(f"{self._container}: {said}")
        if said != "back":
            self._findings.append(f"{self._container} may still be away: {said}.")
        return lasted, missed

    def _await_answer(self, within: float) -> float | None:
        if not until(lambda: _answers(self._stage), within):
            return None
        self._steps.note("Redis answers")
        return self._steps.now

    def _have_ended(self, probes: Probes, counting: Counting) -> bool:
        try:
            counting.look()
            return counting["completed"] >= len(probes.places)
        except UNAVAILABLE:
            return False


class _Missing:
    """Asks again and again whether Redis answers, on a thread of its own: an answer may take long to stay away."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._over = threading.Event()
        self._missed = False
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        while not self._over.is_set():
            begun = time.monotonic()
            self._missed = not _answers(self._stage) or time.monotonic() - begun > 0.5 or self._missed
            self._over.wait(0.1)

    def end(self) -> bool:
        self._over.set()
        self._thread.join()
        return self._missed


def _answers(stage: Stage) -> bool:
    try:
        return bool(stage.store.runner.command("PING"))
    except UNAVAILABLE:
        return False
