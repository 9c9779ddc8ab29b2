"""`rl top`: a running system at a glance, once or for as long as somebody looks."""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from relier.errors import StoreUnavailableError
from relier.settings import Settings, get_settings
from relier.slo import SHOWN, Burn, together
from relier_cli.application import application
from relier_cli.inflight import age_of, p95
from relier_cli.opening import opened_store
from relier_cli.output import AsJson, iso, number, print_json, print_table, print_text, printable, span
from relier_cli.queue import notes_of, oldest_of
from relier_cli.slo import percent, promise, times
from relier_cli.view import ActorRates, Looker, View, described_event

#: Rows of running tasks that are shown where there is room for all.
_TASKS = 20
#: Words that mean that somebody should look, and soon.
_BAD = frozenset({"page", "silent", "gone"})
_ODD = frozenset({"ticket", "burning", "draining", "drained", "paused", "nobody consumes it"})


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the view."""

    title: str
    headers: Sequence[str]
    rows: list[tuple[Any, ...]]


def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Show workers, queues, rates and burn rates of every actor, what runs, crashes and dead letters, until Ctrl-C.

    On anything but a terminal, and with --json, it shows one picture and ends, as with --once. While Redis is away it
    says so, and goes on. What takes long to look at is looked at less often, so that it never costs much.

    Example: rl top --interval 1
    """
    settings = get_settings()
    if once or as_json or not sys.stdout.isatty():
        view = look_once(settings)
        if as_json:
            print_json(view.data())
        else:
            show(view)
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        watch(settings, interval)


def look_once(settings: Settings) -> View:
    known = application(settings)
    with opened_store(settings) as store:
        return Looker(store, known.broker, settings, known.queues).look()


def show(view: View) -> None:
    """Print the whole picture."""
    for line in headline(view):
        print_text(line)
    for section in sections(view):
        typer.echo("")
        typer.echo(section.title)
        print_table(section.headers, section.rows)


# -- what is shown ----------------------------------------------------------------------------------------------------


def headline(view: View) -> Iterator[str]:
    """Yield what is told in whole lines."""
    alive = sum(worker.role != "resurrector" for worker in view.fleet.workers)
    counted = ", ".join(f"{name} {n}" for name, n in view.counted.items() if n)
    yield f"{(iso(view.now) or '')[:19]}Z   {number(alive, 'worker')}; dead workers' tasks: {view.fleet.sweepers}"
    yield f"running {len(view.running)}, dead letters {view.dead_letters}; in 5 minutes: {counted or 'nothing'}"
    if view.parked:
        yield f"parked actors: {', '.join(view.parked)} (rl queue resume --actor NAME)"
    if view.trouble:
        yield f"The broker does not answer: {view.trouble}"


def sections(view: View) -> list[Section]:
    """Return the tables, the most telling first."""
    return [_actors(view), *_latencies(view), _queues(view), _workers(view), _running(view), *_events(view)]


def _actors(view: View) -> Section:
    headers = ("actor", "done/s", "failed/s", "p95 wait", "p95 run", "crashes", "dead", *SHOWN, "budget left", "state")
    rates = {rates.actor: rates for rates in view.actors}
    burns = {burn.actor: burn for burn in view.burns if burn.kind == "success"}
    names = [*rates, *(name for name in burns if name not in rates)]
    rows = [(name, *_rate_cells(rates.get(name)), *_burn_cells(burns.get(name))) for name in names]
    if len(names) > 1:
        done, failed = (sum(getattr(r, what) for r in view.actors) for what in ("completed", "failed"))
        counted = view.counted
        cells = (per_second(done), per_second(failed), "", "", counted["crashes"], counted["dead"])
        rows.append(("(all)", *cells, *_burn_cells(together(burns.values(), 0.5))[:-1], ""))
    return Section("ACTORS (crashes and dead letters of 5 minutes; burn rates)", headers, rows)


def _rate_cells(rates: ActorRates | None) -> tuple[Any, ...]:
    if rates is None:
        return ("0", "0", None, None, 0, 0)
    percentiles = (_duration(rates.p95_wait), _duration(rates.p95_run))
    return (
        per_second(rates.completed),
        per_second(rates.failed),
        *percentiles,
        rates.counts["crashes"],
        rates.counts["dead"],
    )


def _burn_cells(burn: Burn | None) -> tuple[Any, ...]:
    if burn is None:
        return (None,) * (len(SHOWN) + 2)
    return (*(times(burn.burn_rate(window)) for window in SHOWN), percent(burn.budget_left), burn.state)


def _latencies(view: View) -> Iterator[Section]:
    slow = [burn for burn in view.burns if burn.kind == "latency"]
    if slow:
        rows = [(burn.actor, promise(burn), *_burn_cells(burn)) for burn in slow]
        yield Section("LATENCY (burn rates)", ("actor", "objective", *SHOWN, "budget left", "state"), rows)


def per_second(rate: float) -> str:
    """Return a rate for people: two digits that tell something."""
    return f"{rate:.2g}" if rate < 10 else f"{rate:.0f}"


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 60 else span(seconds)


def _queues(view: View) -> Section:
    headers = ("queue", "messages", "due", "scheduled", "oldest", "consumers", "state")
    rows: list[tuple[Any, ...]] = []
    for state in view.queues:
        oldest, notes = oldest_of(state), notes_of(state)
        cells = (state.name, state.depth, state.waiting.due, state.waiting.scheduled)
        words = (["paused"] if state.paused else []) + notes
        rows.append(
            (*cells, span(view.now - oldest) if oldest else None, len(state.consumers), "; ".join(words) or "ok")
        )
    rows.sort(key=lambda row: -((row[1] or 0) + row[2]))
    return Section("QUEUES", headers, rows)


def _workers(view: View) -> Section:
    headers = ("worker", "role", "state", "queues", "threads", "tasks", "uptime")
    rows = [
        (w.id, w.role, w.state, w.queues, w.threads, w.tasks, None if w.uptime is None else span(w.uptime))
        for w in sorted(view.fleet.workers, key=lambda w: (w.state == "alive", -w.tasks))
    ]
    return Section("WORKERS", headers, rows)


def _running(view: View) -> Section:
    headers = ("running", "actor", "queue", "worker", "for", "attempts", "crashes")
    shown = view.running[:_TASKS]
    rows = [
        (t.task_id, t.actor, t.queue, t.owner, age_of(max(0.0, view.now - t.granted_at)), t.attempt, t.crashes)
        for t in shown
    ]
    ages = [max(0.0, view.now - task.granted_at) for task in view.running]
    title = f"RUNNING ({len(ages)}, 95 % for less than {age_of(p95(ages))}; the longest)" if ages else "RUNNING (none)"
    return Section(title, headers, rows)


def _events(view: View) -> Iterator[Section]:
    if view.events:
        headers = ("at", "event", "task", "worker")
        rows = [tuple(event[name] for name in headers) for event in map(described_event, reversed(view.events))]
        yield Section("EVENTS (what was not ordinary, the latest first)", headers, rows)


# -- a terminal -------------------------------------------------------------------------------------------------------


def watch(settings: Settings, interval: float) -> None:
    """Paint the picture anew until somebody ends it."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    known = application(settings)
    console = Console()
    with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        while True:
            try:
                with opened_store(settings) as store:
                    looker = Looker(store, known.broker, settings, known.queues)
                    while True:
                        live.update(painted(looker.look(), shutil.get_terminal_size().lines), refresh=True)
                        time.sleep(interval)
            except StoreUnavailableError as error:
                live.update(Text(f"{error}\nStill trying; Ctrl-C ends it."), refresh=True)
                time.sleep(interval)


def painted(view: View, lines: int) -> Any:
    """Return the picture for a terminal of so many lines."""
    from rich.console import Group
    from rich.text import Text

    head = [*headline(view)]
    parts = sections(view)
    most = fair(lines - len(head) - 2 * len(parts), [len(part.rows) for part in parts])
    tables = [_table(part, rows) for part, rows in zip(parts, most, strict=True)]
    return Group(*(Text(printable(line), no_wrap=True, overflow="ellipsis") for line in head), *tables)


def fair(room: int, wanted: Sequence[int]) -> list[int]:
    """Share out lines: nobody gets more than it wants, and who wants little leaves the rest to the others."""
    given = [0] * len(wanted)
    left = max(0, room)
    while left and (hungry := [i for i, most in enumerate(wanted) if given[i] < most]):
        for i in hungry[:left]:
            given[i] += 1
        left -= min(left, len(hungry))
    return given


def _table(section: Section, most: int) -> Any:
    """Return a section as a table of at most so many rows, its title among the headers."""
    from rich.table import Table
    from rich.text import Text

    hidden = len(section.rows) - most
    title = section.title + (f", {hidden} more" if hidden else "")
    table = Table(
        box=None,
        title=Text(printable(title), style="bold"),
        title_justify="left",
        header_style="dim",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for header in section.headers:
        table.add_column(header.upper(), no_wrap=True, overflow="ellipsis")
    for row in section.rows[:most]:
        table.add_row(*(Text(_cell(value), style=_style(value)) for value in row))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return printable(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


def _style(value: Any) -> str:
    words = set(value.split("; ")) if isinstance(value, str) else set()
    return "bold red" if words & _BAD else "yellow" if words & _ODD else ""
