"""`rl worker`: the worker processes: start them, and see what each does (see `draining` for how they end)."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import typer

from relier.errors import StoreUnavailableError
from relier.installation import Installation
from relier.leases import MEMBER, SLOTS
from relier.logging import configure_logging
from relier.settings import Settings, get_settings
from relier.store import Store
from relier.store.survey import Survey
from relier_cli import draining, health
from relier_cli.opening import opened_store
from relier_cli.output import AsJson, iso, print_json, print_table, print_text, span

app = typer.Typer(help="Worker processes: start, drain, restart them, see what each does.", no_args_is_help=True)
app.command()(draining.drain)
app.command()(draining.restart)


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One process of the fleet."""

    id: str
    role: str
    #: alive; draining (ends what it runs); drained (idle); silent (its control channel has no subscriber: dead or cut
    #: off); gone (its tasks are being put back)
    state: str
    host: str
    pid: int | None
    queues: list[str]
    threads: int | None
    tasks: int
    beats: int
    started_at: str | None
    uptime: float | None
    #: What it sweeps: `watch` is the watch over the fleet, the rest are shards.
    leases: list[str]
    #: Whether its settings allow `rl chaos`.
    chaos: bool


@dataclass(frozen=True, slots=True)
class Fleet:
    """All processes, and who puts back the tasks of dead ones."""

    workers: list[WorkerRow]
    sweepers: str
    free_leases: list[str]


@app.command()
def status(
    me: Annotated[
        bool,
        typer.Option("--me", help="Only this host's processes; exit 1 unless all are well, 0 while Redis is away."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show each worker and resurrector: the queues it consumes, the tasks it has, what it sweeps.

    With --me it is the health check of a container: a process that is cut off ends it with 1. A Redis that is away does
    not: a restart would not help, and whoever waits for Redis goes on when it is back.

    Example: rl worker status --json
    """
    settings = get_settings()
    try:
        with opened_store(settings) as store:
            fleet = fetch(store, settings)
    except StoreUnavailableError as error:
        if not me:
            raise
        typer.echo(f"unknown: {error}", err=True)
        raise typer.Exit(0) from None
    if me:
        fleet = replace(fleet, workers=health.here(fleet.workers))
    _tell(fleet, as_json)
    if me and (why := health.ails(fleet.workers)):
        typer.echo(why, err=True)
        raise typer.Exit(1)


def _tell(fleet: Fleet, as_json: bool) -> None:
    if as_json:
        print_json(asdict(fleet))
    else:
        show(fleet)


def fetch(store: Store, settings: Settings) -> Fleet:
    """Read who is there."""
    told = store.fleet.workers()
    seen = store.fleet.observe()
    owed = {worker: store.fleet.obligation(worker) for worker in seen.obligations}
    everyone = {**{w: o["told"] for w, o in owed.items() if o}, **told}
    holders = _holders(seen.leases)
    present = store.fleet.present(sorted(told))
    owned = Survey(store).owned(everyone)
    rows = [
        _row(worker, fields, seen.server_time / 1e6)
        | {
            "state": _state(fields, present.get(worker)) if worker in told else "gone",
            "tasks": owned[worker],
            "beats": seen.beats.get(worker, 0),
            "leases": sorted(slot for slot, holder in holders.items() if holder == worker),
            "chaos": bool(fields.get("chaos")),
        }
        for worker, fields in everyone.items()
    ]
    rows.sort(key=lambda r: (r["role"], r["host"], r["pid"] or 0))
    free = [slot for slot in SLOTS if holders.get(slot) not in told]
    return Fleet([WorkerRow(**row) for row in rows], _sweepers(told, settings), free)


def _row(worker: str, told: dict[str, Any], now: float) -> dict[str, Any]:
    started = float(told.get("started_at") or 0)
    return {
        "id": worker,
        "role": told.get("role", "worker"),
        "host": told.get("host", ""),
        "pid": told.get("pid"),
        "queues": list(told.get("queues", ())),
        "threads": told.get("threads"),
        "started_at": iso(started),
        "uptime": round(max(0.0, now - started), 3) if started else None,
    }


def _state(told: dict[str, Any], present: bool | None) -> str:
    return (str(told.get("state") or "alive")) if present else "silent"


def _holders(leases: dict[str, str]) -> dict[str, str]:
    """Return the worker behind each lease (`kind|worker|counter`), members' own entries left out."""
    parts = {slot: lease.split("|") for slot, lease in leases.items() if not slot.startswith(MEMBER)}
    return {slot: lease[1] for slot, lease in parts.items() if len(lease) == 3}


def _sweepers(told: dict[str, dict[str, Any]], settings: Settings) -> str:
    dedicated = sum(fields.get("role") == "resurrector" for fields in told.values())
    if dedicated:
        return f"{dedicated} resurrector{'s' * (dedicated > 1)}"
    if not settings.resurrection_enabled:
        return "nobody: RELIER_RESURRECTION_ENABLED is false"
    return "no resurrector; the workers sweep by themselves" if told else "no resurrector, and no worker"


def show(fleet: Fleet) -> None:
    headers = ("id", "role", "state", "queues", "threads", "tasks", "uptime", "sweeps")
    rows: list[tuple[Any, ...]] = [
        (w.id, w.role, w.state, w.queues, w.threads, w.tasks, None if w.uptime is None else span(w.uptime), _sweeps(w))
        for w in fleet.workers
    ]
    if not any(worker.role == "resurrector" for worker in fleet.workers):
        rows.append(("-", "resurrector", "none", [], None, None, None, None))
    print_table(headers, rows)
    free = f" (free leases: {', '.join(fleet.free_leases)})" if fleet.workers and fleet.free_leases else ""
    print_text(f"dead workers' tasks are put back by: {fleet.sweepers}{free}")


def _sweeps(worker: WorkerRow) -> str | None:
    return "everything" if len(worker.leases) == len(SLOTS) else ", ".join(worker.leases) or None


@app.command(
    # What follows -- is Dramatiq's.
    epilog="Example: rl worker start --processes 4 -- my_app.tasks -t 8 -Q default"
)
def start(
    flags: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- [MODULES] [FLAGS]", help="Actor modules and flags for Dramatiq; -Q and its queues last."
        ),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="How many worker processes.")] = os.cpu_count() or 1,
) -> None:
    """Run worker processes, each under a Dramatiq of its own, and restart whichever ends.

    SIGTERM or Ctrl-C ends them in order, a second one at once.
    """
    from relier.brokers import default_broker
    from relier.fleet_checks import broker_check, format_check
    from relier.preflight import check_redis
    from relier.supervisor import Supervisor, worker_command

    given = list(flags or ())
    check_flags(given)
    settings = get_settings()
    configure_logging(settings)
    # What the workers would refuse is said once here. The connection also keeps an embedded server up between them.
    store = Installation(settings).store
    brokers = [broker_check(default_broker(settings))] if settings.broker_url else []
    check_redis(store.client, settings, [format_check(store), *brokers])
    raise typer.Exit(Supervisor(worker_command(given), processes, settings.graceful_shutdown_timeout).run())


def check_flags(flags: list[str]) -> None:
    """End with code 2 when Dramatiq would not take the flags, or when they contradict the supervisor."""
    from dramatiq.cli import make_argument_parser

    from relier.supervisor import worker_command

    parser = make_argument_parser()  # type: ignore[no-untyped-call]
    parsed = parser.parse_args(worker_command(flags)[3:])
    if parsed.processes != 1:
        parser.error("each process has one worker under rl worker start; use its --processes instead of -p")
    if parsed.watch or parsed.pid_file:
        parser.error("--watch and --pid-file are for a single dramatiq; rl worker start runs several")
