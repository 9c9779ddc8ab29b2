"""What is known of a task, in the order of time: its stamp, its runs, what was done to it, and what comes next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from dramatiq import Message

from relier.envelope import stamp_of
from relier.store import Record
from relier.store.holds import ACTOR_PARKED
from relier.store.records import Run
from relier_cli.holding import resuming
from relier_cli.output import iso, print_table, span

#: Ends of runs that the stream of events tells as well, at the very same time.
_BOTH = frozenset({"crashed", "handed over", "released", "retried", "imported"})
#: By so much (s) a producer may take the server's time for later than it is: it heard of it over a slow connection.
_MISJUDGED = 1.0
#: What events say of themselves.
_OWN = ("at", "event", "task", "by", "worker")


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened. `at`: seconds since the epoch, on the server's clock."""

    at: float
    what: str
    by: str = ""  #: the worker, or who asked
    detail: str = ""
    whole: bool = False  #: whether its time is known to the second only

    def data(self) -> dict[str, str | None]:
        return {
            "at": iso(self.at, whole=self.whole),
            "what": self.what,
            "by": self.by or None,
            "detail": self.detail or None,
        }


def timeline(record: Record, events: list[dict[str, str]], died_at: float) -> list[Moment]:
    """Return all that happened, the oldest first, each thing once."""
    told = {(round(run.ended_at * 1e6), run.outcome) for run in record.runs}
    news = [event for event in events if (int(event["at"]), event["event"]) not in told or event["event"] not in _BOTH]
    later = [*_runs(record), *noted(news)]
    moments = [*_before(_beginning(record), later), *later]
    if died_at and not any(moment.what == "dead-lettered" for moment in moments):
        moments.append(Moment(died_at, "dead-lettered", detail=record.reason))
    return sorted(dict.fromkeys(moments), key=lambda moment: moment.at)


def _beginning(record: Record) -> Iterator[Moment]:
    if stamped := _stamped(record.body):
        yield stamped
    elif record.created_at:
        yield Moment(record.created_at, "first known", whole=True)


def _before(beginning: Iterable[Moment], later: Iterable[Moment]) -> Iterator[Moment]:
    """Yield the beginning, not behind what followed by as little as a producer may misjudge the server's time."""
    first = min((moment.at for moment in later), default=float("inf"))
    for moment in beginning:
        yield replace(moment, at=first) if 0 < moment.at - first < _MISJUDGED else moment


def _stamped(body: bytes) -> Moment | None:
    """Return what the stamp of a message tells; None when it cannot be read any more."""
    try:
        stamp = stamp_of(Message.decode(body)) if body else None
    except Exception:  # An encoder of the application's may raise anything.
        return None
    if stamp is None or not stamp.created_ms:
        return None
    known = {"payload version": stamp.payload_version, "idempotency key": stamp.key[:12], "job key": stamp.job[:12]}
    detail = ", ".join(f"{name} {value}" for name, value in known.items() if value not in ("", 1))
    return Moment(stamp.created_ms / 1000, "enqueued", detail=f"{detail}, its hook's" if stamp.follow_up else detail)


def _runs(record: Record) -> Iterator[Moment]:
    number = 0
    for run in record.runs:
        if _was_asked(run):
            yield Moment(run.ended_at, run.outcome, run.worker, run.detail)
            continue
        number += 1
        yield Moment(run.started_at, f"run {number} began", run.worker)
        took = f"after {_took(run.ended_at - run.started_at)}"
        yield Moment(run.ended_at, f"run {number} {run.outcome}", run.worker, f"{took}: {run.detail}".rstrip(": "))
    if record.owner:
        what = f"run {number + 1} began" if record.state == "r" else "its callbacks began"
        yield Moment(record.granted_at, what, record.owner)


def _was_asked(run: Run) -> bool:
    """Whether it is no run, but something that somebody did to the task."""
    at_once = run.started_at == run.ended_at and run.outcome not in ("failed", "crashed")
    return at_once or run.outcome in ("retried", "imported")


def noted(events: Iterable[dict[str, str]]) -> Iterator[Moment]:
    """Return what the stream of events tells."""
    for event in events:
        at, kind = int(event["at"]), event["event"]
        detail = ", ".join(f"{name} {value}" for name, value in event.items() if name not in _OWN)
        what = "dead-lettered" if kind == "dead" else kind
        yield Moment(at / 1e6, what, event.get("by") or event.get("worker", ""), detail)


def _took(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 60 else span(seconds)


def print_timeline(data: Mapping[str, Any]) -> None:
    """Print it as people read it: times, how long after the one before, what, by whom, and what comes next."""
    rows, before = [], 0.0
    for moment in data["timeline"]:
        at = datetime.fromisoformat(moment["at"]).timestamp() if moment["at"] else before
        after = f"+{_took(max(0.0, at - before))}" if before else ""
        rows.append((f"{moment['at'] or '?':.23}".rstrip("Z").replace("T", " "), after, *_told(moment)))
        before = at
    if next_ := upcoming(data):
        rows.append(("next", "", next_, "", ""))
    print_table(("time (UTC)", "after", "what", "by", "detail"), rows)


def _told(moment: Mapping[str, Any]) -> tuple[str, str, str]:
    return moment["what"], moment["by"] or "", moment["detail"] or ""


def upcoming(data: Mapping[str, Any]) -> str:
    """Return what will become of a task that has not ended, and of one that is but marked."""
    status, due, reason = data["status"], data["due_at"], data["reason"]
    if status == "marked":
        return "nothing was known of it when it was cancelled: it does not run from then on, and may have run before"
    because = f" ({reason})" if reason else ""
    if status == "running":
        return f"it runs{because}"
    if status == "queued":
        return f"it waits for a worker{because}; without one it is published again at {due}" if due else "it waits"
    if status in ("due", "scheduled"):
        if resume := resuming(reason, data["queue"], data["actor"]):
            other = "other code of its actor is deployed, or " if reason == ACTOR_PARKED else ""
            return f"it is held{because} until {other}somebody lets it go on: {resume}"
        return f"{'the sweep publishes it' if status == 'due' else f'it is published at {due}'}{because}"
    return "it waits for a decision: rl dlq release, or rl tasks cancel" if status == "dead" else ""
