"""`rl tasks inflight`: what runs where, since when; once, or for as long as somebody looks."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from dramatiq import Broker

from relier.brokers import default_broker
from relier.errors import StoreUnavailableError
from relier.fleet_checks import depths, found_queues
from relier.settings import Settings, get_settings
from relier.store import Store
from relier.store.survey import Summary, Survey
from relier_cli.opening import opened_store
from relier_cli.output import AsJson, iso, number, print_json, print_table, print_text, span

#: What a terminal is told to begin a picture anew: to the upper left, and nothing below.
_HOME = "\x1b[H\x1b[J"
#: Lines of a terminal that the footer and the headers take.
_MARGIN = 6


@dataclass(frozen=True, slots=True)
class Picture:
    """What runs at one moment, the longest first."""

    now: float
    running: list[Summary]
    #: Ended tasks whose callbacks run.
    hooks: int
    workers: int
    in_broker: dict[str, int]

    @property
    def ages(self) -> list[float]:
        return [max(0.0, self.now - task.granted_at) for task in self.running]

    def data(self) -> dict[str, Any]:
        return {
            "at": iso(self.now),
            "tasks": [row(task, age) for task, age in zip(self.running, self.ages, strict=True)],
            "running": len(self.running),
            "callbacks_running": self.hooks,
            "workers": self.workers,
            "in_broker": self.in_broker,
            "queue_depth": sum(self.in_broker.values()) if self.in_broker else None,
            "p95_seconds": round(p95(self.ages), 3) if self.running else None,
        }


def row(task: Summary, age: float) -> dict[str, Any]:
    return {
        "id": task.task_id,
        "actor": task.actor,
        "queue": task.queue,
        "worker": task.owner,
        "started_at": iso(task.granted_at),
        "seconds": round(age, 3),
        "attempts": task.attempt,
        "resurrection_count": task.crashes,
        "reason": task.reason or None,
    }


def p95(ages: list[float]) -> float:
    """Return the age that 95 % of the tasks are not above (the nearest rank)."""
    ordered = sorted(ages)
    return ordered[max(0, -(-len(ordered) * 95 // 100) - 1)]


def inflight(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks, with --follow.")] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Show what runs: where, since when, which attempt; below, totals, waiting messages, the 95th percentile of ages.

    With --follow a terminal shows it anew at each look; else there is a line for each task that begins (+) and leaves
    (-), or with --json an object a line for each look. While Redis is away it says so, and goes on.

    Example: rl tasks inflight --follow
    """
    settings = get_settings()
    broker = default_broker(settings)
    if follow:
        _follow(settings, broker, interval, as_json)
        return
    with opened_store(settings) as store:
        picture = look(store, broker, {*settings.public_queues, *found_queues(broker)})
    if as_json:
        print_json(picture.data())
    else:
        show(picture)


def look(store: Store, broker: Broker, known: set[str]) -> Picture:
    """Read what every worker runs: those that live, and those that died and are not buried yet.

    known: queues whose messages are counted as well as those that the workers consume.
    """
    survey = Survey(store)
    workers = store.fleet.workers()
    owed = store.fleet.observe().obligations
    owned = survey.some(survey.owned_by({*workers, *owed})).values()
    running = sorted((task for task in owned if task.state == "r"), key=lambda task: (task.granted_at, task.task_id))
    queues = {*known, *(queue for told in workers.values() for queue in told.get("queues", ()))}
    consuming = sum(told.get("role") != "resurrector" for told in workers.values())
    hooks = sum(task.state == "h" for task in owned)
    return Picture(survey.now(), running, hooks, consuming, depths(broker, queues))


def show(picture: Picture, most: int | None = None) -> None:
    """Print a picture; of its tasks at most so many."""
    headers = ("id", "actor", "queue", "worker", "running for", "attempts", "crashes", "reason")
    names = ("id", "actor", "queue", "worker", "for", "attempts", "resurrection_count", "reason")
    tasks = list(zip(picture.running, picture.ages, strict=True))
    rows = [{**row(task, age), "for": age_of(age)} for task, age in tasks[:most]]
    print_table(headers, ([r[name] for name in names] for r in rows))
    if len(tasks) > len(rows):
        typer.echo(f"… and {len(tasks) - len(rows)} more that began later")
    for line in footer(picture):
        print_text(line)


def footer(picture: Picture) -> Iterator[str]:
    callbacks = f", callbacks of {picture.hooks} ended" if picture.hooks else ""
    ages = f"; 95 % run for less than {age_of(p95(picture.ages))}" if picture.running else ""
    yield f"{len(picture.running)} running on {number(picture.workers, 'worker')}{callbacks}{ages}"
    waiting = ", ".join(f"{queue} {n}" for queue, n in picture.in_broker.items() if n)
    yield f"messages in the broker: {waiting or 'none'}"


def age_of(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 60 else span(seconds)


# -- following --------------------------------------------------------------------------------------------------------


def _follow(settings: Settings, broker: Broker, interval: float, as_json: bool) -> None:
    """Show pictures until somebody ends it: Ctrl-C, or whoever reads goes away."""
    told = _told_as(as_json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for picture in _pictures(settings, broker, interval, told):
            told(picture)
            sys.stdout.flush()
            if _nobody_reads():
                raise BrokenPipeError
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Else its last flush would complain.


def _nobody_reads() -> bool:
    """Whether the pipe that we write to has lost its reader: while nothing changes, no write would tell."""
    asked = select.poll()
    asked.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in asked.poll(0))


def _pictures(settings: Settings, broker: Broker, interval: float, told: Any) -> Iterator[Picture]:
    away = False
    while True:
        try:
            with opened_store(settings) as store:
                known = {*settings.public_queues, *found_queues(broker)}  # Once: it costs too much for every look.
                while True:
                    picture = look(store, broker, known)
                    if away:
                        told.note("Redis answers again.")
                    away = False
                    yield picture
                    time.sleep(interval)
        except StoreUnavailableError as error:
            if not away:
                told.note(f"{error} Still trying; Ctrl-C ends it.")
            away = True
        time.sleep(interval)


def _told_as(as_json: bool) -> Callable[[Picture], None]:
    if as_json:
        return JsonLines()
    return Screen() if sys.stdout.isatty() else Lines()


def _stderr(text: str) -> None:
    typer.echo(text, err=True)


class JsonLines:
    """An object a line for each look; notes go to standard error."""

    note = staticmethod(_stderr)

    def __call__(self, picture: Picture) -> None:
        typer.echo(json.dumps(picture.data()))


class Screen:
    """A terminal that is painted anew."""

    def note(self, text: str) -> None:
        print_text(text)

    def __call__(self, picture: Picture) -> None:
        sys.stdout.write(_HOME)
        show(picture, max(1, shutil.get_terminal_size().lines - _MARGIN))


class Lines:
    """A line for each task that begins or leaves, and one that sums up whenever there was any."""

    note = staticmethod(_stderr)

    def __init__(self) -> None:
        self._known: dict[tuple[str, float], Summary] = {}
        self._first = True

    def __call__(self, picture: Picture) -> None:
        here = {(task.task_id, task.granted_at): task for task in picture.running}
        began = [task for key, task in here.items() if key not in self._known]
        left = [task for key, task in self._known.items() if key not in here]
        for task in left:
            self._line("-", picture, task)
        for task in began:
            self._line("+", picture, task)
        if began or left or self._first:
            print_text(f"{_clock(picture)}   {' · '.join(footer(picture))}")
        self._known, self._first = here, False

    def _line(self, sign: str, picture: Picture, task: Summary) -> None:
        age = age_of(max(0.0, picture.now - task.granted_at))
        print_text(f"{_clock(picture)} {sign} {task.task_id} {task.actor} on {task.owner} for {age}")


def _clock(picture: Picture) -> str:
    return (iso(picture.now) or "")[11:19]
