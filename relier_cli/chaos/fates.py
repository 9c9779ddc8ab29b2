"""What becomes of the tasks that a worker ran when it began to suffer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from relier.store.records import Record
from relier.store.survey import Summary
from relier_cli.chaos.probes import Probes
from relier_cli.chaos.stage import Stage
from relier_cli.chaos.verdict import Steps
from relier_cli.output import number


@dataclass(slots=True)
class Fate:
    """One task. Times are seconds on the server's clock; None: not yet."""

    task: Summary
    probe: bool
    #: The fence of its run on the worker that suffers: a higher one is another run.
    fence: int
    again_at: float | None = None
    again_on: str | None = None
    ended: str | None = None
    #: Whether its end is that of the run on the worker that suffers.
    own_end: bool = False
    #: The fence under which it ended.
    end_fence: int = 0

    @property
    def settled(self) -> bool:
        """Whether there is nothing to wait for: of a task of the user's nobody knows how long it takes."""
        return self.ended is not None or (self.again_at is not None and not self.probe)

    @property
    def strange(self) -> bool:
        """Whether the worker completed what it must have lost: a probe does not end there before it is too late."""
        return self.own_end and self.probe


class Fates:
    """Follows the tasks of one worker.

    Parameters:
      probes: those among them that are the experiment's own: they do not end there by themselves.
    """

    def __init__(self, stage: Stage, worker: str, steps: Steps, probes: Probes) -> None:
        self._stage = stage
        self._worker = worker
        self._steps = steps
        self._probes = probes
        self.all: dict[str, Fate] = {}

    def add(self, tasks: Iterable[Summary]) -> None:
        """Follow these, too."""
        fresh = {task.task_id: task for task in tasks if task.task_id not in self.all}
        for task_id, record in self._records(fresh.values()).items():
            if record is not None and record.state == "r" and record.owner == self._worker:
                self.all[task_id] = Fate(fresh[task_id], task_id in self._probes.places, record.fence)

    def look(self) -> None:
        """See how far each has come."""
        open_ = [fate for fate in self.all.values() if not fate.settled]
        records = self._records(fate.task for fate in open_)
        ran = self._probes.holding.runs() if open_ else {}  # Then: a run is noted before it can end.
        for task_id, record in records.items():
            fate = self.all[task_id]
            if record is None:  # It completed at its first try, and was forgotten.
                fate.ended, fate.own_end = "completed", True
                continue
            self._note_run(fate, record, ran)
            self._note_end(fate, record)

    def _records(self, tasks: Iterable[Summary]) -> dict[str, Record | None]:
        by_shard: dict[int, list[str]] = {}
        for task in tasks:
            by_shard.setdefault(task.shard, []).append(task.task_id)
        found: dict[str, Record | None] = {}
        for shard, ids in by_shard.items():
            records = self._stage.store.records(ids, shard)
            found.update((task_id, records.get(task_id)) for task_id in ids)
        return found

    def _note_run(self, fate: Fate, record: Record, ran: dict[tuple[str, int], str]) -> None:
        if fate.again_at is not None or record.fence <= fate.fence or record.state == "s":
            return
        if record.owner:
            fate.again_at, fate.again_on = record.granted_at, record.owner
        elif record.outcome == "completed":  # A fence is the time of its claim.
            fate.again_at = record.fence / 1e6
            fate.again_on = ran.get((record.task_id, record.fence))
        else:
            return
        self._steps.note(f"{_named(fate)} runs again on {fate.again_on or 'another worker'}")

    def _note_end(self, fate: Fate, record: Record) -> None:
        if record.state in ("s", "r"):
            return
        fate.ended, fate.end_fence = record.outcome, record.fence
        first_try = record.fence in (fate.fence, 0)  # 0: only its id is remembered.
        fate.own_end = first_try and record.outcome == "completed"
        self._steps.note(f"{_named(fate)} ended: {record.outcome}")

    @property
    def settled(self) -> bool:
        return all(fate.settled for fate in self.all.values())

    @property
    def suffered(self) -> list[Fate]:
        """Those that the worker did not complete itself."""
        return [fate for fate in self.all.values() if not fate.own_end]

    def findings(self, within: float) -> list[str]:
        """Return what is not as promised, after the time that was given, now that the worker lost them."""
        return [
            *_finding(
                "did not run again", [f for f in self.suffered if f.again_at is None and f.ended is None], within
            ),
            *_finding(
                "ran again, and did not end",
                [f for f in self.suffered if f.probe and f.again_at is not None and f.ended is None],
                within,
            ),
            *_finding("ended by the word of a worker that had lost it", [f for f in self.all.values() if f.strange]),
            *_finding("did not complete", [f for f in self.suffered if f.probe and f.ended not in (None, "completed")]),
        ]

    def undone(self) -> list[str]:
        """Return a finding when what had ended has another end now."""
        ended = [fate for fate in self.all.values() if fate.end_fence]
        now = self._records(fate.task for fate in ended)
        seen = {task_id: (record.outcome, record.fence) for task_id, record in now.items() if record is not None}
        as_it_was = ((fate, (fate.ended, fate.end_fence)) for fate in ended)
        return _finding(
            "have another end than they had", [f for f, end in as_it_was if seen.get(f.task.task_id, end) != end]
        )

    def refused(self) -> int:
        """Return how many late reports of the worker the store refused, of these tasks."""
        events = (
            event
            for fate in self.all.values()
            for event in self._stage.survey.events_of(fate.task.task_id, fate.task.shard)
        )
        return sum(event["event"] == "refused" and event.get("worker") == self._worker for event in events)

    def slowest(self, zero: float) -> float | None:
        """Return after how many seconds the last of them ran again."""
        return max((fate.again_at - zero for fate in self.suffered if fate.again_at is not None), default=None)

    def data(self, zero: float) -> list[dict[str, Any]]:
        return [
            {
                "id": fate.task.task_id,
                "actor": fate.task.actor,
                "queue": fate.task.queue,
                "probe": fate.probe,
                "spared": fate.own_end,
                "again_after": None if fate.again_at is None else round(fate.again_at - zero, 3),
                "again_on": fate.again_on,
                "end": fate.ended,
            }
            for fate in self.all.values()
        ]


def _finding(what: str, fates: list[Fate], within: float | None = None) -> list[str]:
    if not fates:
        return []
    ids = ", ".join(fate.task.task_id for fate in fates[:3]) + ", …" * (len(fates) > 3)
    time = "" if within is None else f" within {within:g} s"
    return [f"{number(len(fates), 'task')} {what}{time}: {ids}."]


def _named(fate: Fate) -> str:
    return f"{fate.task.actor or 'task'} {fate.task.task_id[:8]}"
