"""`rl chaos load-spike`: many tasks at once; what is admitted, what is shed, and when is the queue as it was?"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from dramatiq import Broker, Message

from relier import AdmissionRejectedError
from relier.brokers.adapters import adapter_of
from relier.chaos.actors import NOTHING
from relier.fleet_checks import depths
from relier_cli.chaos.counting import Counting
from relier_cli.chaos.stage import Stage, Watch, Yes, insist_on_workers, opened_stage, refuse
from relier_cli.chaos.verdict import Steps, Verdict
from relier_cli.output import AsJson, number

#: Most tasks in one piece: admission takes a piece or leaves it.
PIECE = 50
#: How often (s) the queue is looked at.
LOOK = 0.2

Tasks = Annotated[int, typer.Option("--tasks", min=1, max=1_000_000, help="How many.")]
Actor = Annotated[str, typer.Option("--actor", help="An actor of RELIER_ACTORS. Default: one that does nothing.")]
Args = Annotated[str, typer.Option("--args", help="Its arguments: a JSON list.")]
Kwargs = Annotated[str, typer.Option("--kwargs", help="Its keyword arguments: a JSON object.")]
Rate = Annotated[float, typer.Option("--rate", min=0, help="Tasks a second at most; 0: as many as can be.")]
Within = Annotated[float, typer.Option("--within", min=1, help="Seconds in which all must have ended.")]


def load_spike(
    *,
    tasks: Tasks = 1000,
    actor: Actor = NOTHING,
    args: Args = "[]",
    kwargs: Kwargs = "{}",
    rate: Rate = 0.0,
    watch: Watch = False,
    within: Within = 120.0,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Push many tasks at once, and see each that was admitted end, and the queue become what it was.

    Admission may shed some: that is no failure, and is told. Others that push meanwhile share its limit. Exit code 0:
    the promise held; 1: it did not; 2: refused, nothing was done.

    Example: rl chaos load-spike --tasks 20000 --yes
    """
    with opened_stage() as stage:
        insist_on_workers(stage)
        broker = stage.broker()
        queue = _queue_of(stage, broker, actor)
        message = Message[Any](queue, actor, tuple(_read(args, "--args", list)), _read(kwargs, "--kwargs", dict), {})
        stage.insist(yes, f"This pushes {number(tasks, 'task')} of {actor}, and uses up the limit of admission.")
        verdict = Spike(stage, broker, message, Steps(watch, as_json)).run(tasks, rate, within)
    verdict.tell(as_json)


def _read(text: str, option: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise typer.BadParameter(f"{option} takes a JSON {'list' if kind is list else 'object'}, not {text!r}.")
    return value


def _queue_of(stage: Stage, broker: Broker, actor: str) -> str:
    """Return the queue of an actor. Refuses one that is not known, or whose workers do not all allow chaos."""
    known = broker.actors.get(actor)
    if known is None:
        refuse(f"No actor is named {actor!r} here: name its module in RELIER_ACTORS.")
    queue = str(known.queue_name)
    consumers = {w: told for w, told in stage.fleet().items() if queue in told.get("queues", ())}
    unwilling = sorted(worker for worker, told in consumers.items() if not told.get("chaos"))
    if unwilling or not consumers:
        who = ", ".join(unwilling) or "nobody consumes it"
        refuse(f"Every worker that consumes {queue!r} would suffer, and not all allow it: {who}.")
    return queue


@dataclass
class Seen:
    """What was seen of the queue."""

    depth: int | None = None
    peak: int | None = None
    oldest: float | None = None


class Spike:
    """One spike of load."""

    def __init__(self, stage: Stage, broker: Broker, message: Message[Any], steps: Steps) -> None:
        self._broker = broker
        self._message = message
        self._steps = steps
        self._queue = message.queue_name
        self._counting = Counting(stage, self._queue, message.actor_name)
        self._seen = Seen()
        self._looked = 0.0
        self._pushed = self._shed = 0

    def run(self, tasks: int, rate: float, within: float) -> Verdict:
        """Push, and wait until everything has ended."""
        self._look()
        before = self._seen.depth
        self._steps.begin()
        self._push(tasks, rate)
        pushed_in = self._steps.now
        self._steps.note(f"{number(self._pushed, 'task')} pushed, {self._shed} shed by admission")
        ended_in = self._await_ends(before, within)
        counted = self._counting
        findings = self._findings(before, within)
        details = {
            "actor": self._message.actor_name,
            "queue": self._queue,
            "asked": tasks,
            "pushed": self._pushed,
            "shed": self._shed,
            "pushed_in": pushed_in,
            "pushed_per_second": round(self._pushed / max(pushed_in, 0.001), 1),
            "ended_in": ended_in,
            "ended_per_second": None if not ended_in else round(self._pushed / ended_in, 1),
            "completed": counted["completed"],
            "dead": counted["dead"],
            "discarded": counted["discarded"],
            "depth_before": before,
            "depth_peak": self._seen.peak,
            "depth_after": self._seen.depth,
            "oldest_seconds": self._seen.oldest,
            "wait_p95_seconds": counted.wait_p95(),
        }
        return Verdict("load-spike", self._held(details), self._steps, findings, details)

    def _held(self, told: dict[str, Any]) -> str:
        parts = [
            f"{number(told['pushed'], 'task')} pushed in {told['pushed_in']:.1f} s, {told['shed']} shed by admission"
        ]
        if told["ended_in"] is not None:
            parts.append(f"all had ended after {told['ended_in']:.1f} s")
        if told["depth_peak"] is not None:
            parts.append(f"at most {told['depth_peak']} waited in {self._queue}")
        if told["oldest_seconds"] is not None:
            parts.append(f"the oldest for {told['oldest_seconds']:.1f} s")
        return "; ".join(parts) + "."

    def _push(self, tasks: int, rate: float) -> None:
        begun = time.monotonic()
        adapter = adapter_of(self._broker)
        for first in range(0, tasks, PIECE):
            if rate and (early := first / rate - (time.monotonic() - begun)) > 0:
                time.sleep(early)
            size = min(PIECE, tasks - first)
            try:
                adapter.enqueue_many([self._copy() for _ in range(size)])
                self._pushed += size
            except AdmissionRejectedError:
                self._shed += size
            self._look()

    def _copy(self) -> Message[Any]:
        message = self._message
        return Message(message.queue_name, message.actor_name, message.args, dict(message.kwargs), {})

    def _await_ends(self, before: int | None, within: float) -> float | None:
        """Return after how long all had ended and the queue was as it had been; None: not in time."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            self._look()
            self._counting.look()
            if self._counting.ended >= self._pushed and (before is None or (self._seen.depth or 0) <= before):
                self._steps.note("all have ended")
                return self._steps.now
            time.sleep(LOOK)
        return None

    def _look(self) -> None:
        """See how deep the queue is, and how old its oldest message; not too often."""
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        seen = self._seen
        seen.depth = depths(self._broker, [self._queue]).get(self._queue)
        if seen.depth is not None:
            seen.peak = max(seen.peak or 0, seen.depth)
        oldest = adapter_of(self._broker).oldest(self._queue)
        if oldest is not None:
            seen.oldest = round(max(seen.oldest or 0.0, time.time() - oldest), 3)

    def _findings(self, before: int | None, within: float) -> list[str]:
        counted, found = self._counting, []
        if missing := max(0, self._pushed - counted.ended):
            found.append(f"{number(missing, 'task')} did not end within {within:g} s.")
        elif before is not None and (self._seen.depth or 0) > before:
            found.append(f"{self._seen.depth} messages wait in {self._queue} after {within:g} s; {before} did before.")
        if self._message.actor_name == NOTHING and counted["completed"] > self._pushed:
            found.append(f"{counted['completed']} tasks completed, of {self._pushed} that were pushed.")
        if counted["dead"] and self._message.actor_name == NOTHING:
            found.append(f"{number(counted['dead'], 'task')} became dead letters: rl dlq list.")
        return found
