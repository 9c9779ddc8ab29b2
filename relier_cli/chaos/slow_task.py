"""`rl chaos slow-task`: a task takes longer than its limit, or than a heartbeat; does it end as documented?"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer
from dramatiq import Message

from relier import TaskReceipt
from relier.brokers.adapters import adapter_of
from relier.cancelling import cancel_task
from relier.chaos.actors import HOLD, LIMIT, OVERRUN, OVERTIME, QUEUE, REST
from relier.store.letters import Place
from relier_cli.chaos.letters import remove_letter
from relier_cli.chaos.stage import Stage, Watch, Within, Yes, insist_on_workers, opened_stage
from relier_cli.chaos.task_corrupt import Remove
from relier_cli.chaos.verdict import Steps, Verdict
from relier_cli.chaos.victims import until
from relier_cli.opening import who
from relier_cli.output import AsJson


class How(StrEnum):
    """Which limit a task exceeds."""

    HARD_TIMEOUT = "hard-timeout"
    TIME_LIMIT = "time-limit"
    HEARTBEAT = "heartbeat"
    INTERPRETER = "interpreter"


#: Its actor, and how it must end: dead with this reason, or completed ('').
_EXPECTED = {
    How.HARD_TIMEOUT: (OVERRUN, "HardTimeoutError"),
    How.TIME_LIMIT: (OVERTIME, "TimeLimitExceeded"),
    How.HEARTBEAT: (REST, ""),
    How.INTERPRETER: (HOLD, ""),
}
#: How many times RELIER_HEARTBEAT_TTL, or its limit, a task takes.
LONGER = {How.HARD_TIMEOUT: 20, How.TIME_LIMIT: 20, How.HEARTBEAT: 1.5, How.INTERPRETER: 1.5}

Hows = Annotated[How, typer.Option("--how", help="What it exceeds; `interpreter`: a heartbeat, in native code.")]


def slow_task(
    *,
    how: Hows = How.HARD_TIMEOUT,
    remove: Remove = False,
    watch: Watch = False,
    within: Within = 60.0,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Run a task that takes too long, and see it end as documented: a dead letter, or completed, in one run.

    Exit code 0: the promise held; 1: it did not; 2: refused, nothing was done.

    Example: rl chaos slow-task --how heartbeat --watch
    """
    with opened_stage() as stage:
        insist_on_workers(stage)
        if how is How.INTERPRETER:
            stage.insist(yes, "This holds up everything else that a worker runs.")
        verdict = Experiment(stage, how, Steps(watch, as_json)).run(within, remove)
    verdict.tell(as_json)


class Experiment:
    """One slow task."""

    def __init__(self, stage: Stage, how: How, steps: Steps) -> None:
        self._stage = stage
        self._how = how
        self._steps = steps
        self._actor, self._reason = _EXPECTED[how]
        by = LIMIT if self._reason else stage.settings.heartbeat_ttl
        self._seconds = LONGER[how] * by
        self._runs: dict[int, str] = {}
        self._end = ""
        self._why = ""
        self._crashes = 0

    def run(self, within: float, remove: bool) -> Verdict:
        """Push it, and follow it to its end; it is cancelled when that does not come."""
        broker = self._stage.broker()
        message = Message[Any](QUEUE, self._actor, (self._seconds,), {}, {})
        self._steps.begin()
        receipt = TaskReceipt.of(adapter_of(broker).enqueue_many([message])[0], broker)
        place = Place(0, receipt.shard or 0, receipt.id)
        patience = within if self._reason else within + self._seconds
        try:
            until(lambda: self._has_ended(place), patience)
        finally:
            if not self._end:
                cancel_task(self._stage.store, place.task_id, who(), place.shard)
        findings = self._findings(patience)
        removed = remove and self._end == "dead" and remove_letter(self._stage, place)
        details = {
            "how": self._how.value,
            "task": place.task_id,
            "takes": self._seconds,
            "expected": self._reason or "completed",
            "end": self._end or None,
            "reason": self._why or None,
            "runs": len(self._runs),
            "resurrection_count": self._crashes,
            "workers": list(dict.fromkeys(self._runs.values())),
            "removed": removed,
        }
        end = f"a dead letter, {self._reason}{', removed again' if removed else ''}" if self._reason else "completed"
        held = f"Task {place.task_id} would have taken {self._seconds:g} s: {end}, after one run."
        if not self._reason:
            held = f"Task {place.task_id} took {self._seconds:g} s, longer than a heartbeat lasts: {end} in one run."
        return Verdict("slow-task", held, self._steps, findings, details)

    def _has_ended(self, place: Place) -> bool:
        record = self._stage.store.records([place.task_id], place.shard).get(place.task_id)
        if record is None:
            if self._runs:  # It completed at its first try, and was forgotten.
                self._note_end("completed", "")
            return bool(self._end)
        self._crashes = record.crashes
        if record.owner and record.fence not in self._runs:
            self._runs[record.fence] = record.owner
            self._steps.note(f"it runs on {record.owner}")
        if record.state not in ("s", "r"):
            self._runs.setdefault(record.fence, record.runs[-1].worker if record.runs else "")
            self._note_end(record.outcome, record.reason)
        return bool(self._end)

    def _note_end(self, end: str, why: str) -> None:
        self._end, self._why = end, why
        self._steps.note(f"it ended: {end} {why}".rstrip())

    def _findings(self, patience: float) -> list[str]:
        if not self._end:
            return [f"It did not end within {patience:g} s."]
        found = []
        wanted = ("dead", self._reason) if self._reason else ("completed", "")
        if (self._end, self._why) != wanted:
            found.append(
                f"It ended as {self._end} {self._why}".rstrip() + f", not as {' '.join(wanted)}".rstrip() + "."
            )
        if self._crashes or len(self._runs) > 1:
            found.append(f"It ran {len(self._runs)} times, {self._crashes} times after the death of its worker.")
        return found
