"""`rl tasks`: what runs, what waits and why, and all that is known of one task."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from dramatiq import Broker

from relier.brokers import default_broker
from relier.cancelling import cancel_task
from relier.errors import RelierError
from relier.fleet_checks import depths
from relier.settings import Settings, get_settings
from relier.store import Store
from relier.store.survey import Summary, Survey
from relier_cli.lookup import described, find
from relier_cli.opening import opened_store, who
from relier_cli.output import AsJson, iso, print_fields, print_json, print_table, print_text

app = typer.Typer(help="Tasks: what runs, what waits and why.", no_args_is_help=True)

STATES = ("scheduled", "due", "queued", "running", "dead", "completed", "discarded")

TaskId = Annotated[str, typer.Argument(metavar="ID", help="The task's id.")]


@dataclass(frozen=True, slots=True)
class Listing:
    """The newest tasks of a state, and how many there are of each."""

    tasks: list[Summary]
    now: float
    counts: dict[str, int]
    #: Messages that wait in the broker; before their first claim they have no record.
    in_broker: dict[str, int]


def _state(value: str | None) -> str | None:
    if value is not None and value not in STATES:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(STATES)}")
    return value


@app.command("list")
def list_tasks(
    state: Annotated[
        str | None, typer.Option(callback=_state, help=f"One of {', '.join(STATES)}. Default: all.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most tasks shown.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List tasks that have a record, newest first.

    A task has one from its first claim on, or from its push when it is delayed; before, it is a message in the
    broker, and is counted only. `due` is what waits for the resurrector; the reason `no consumer` says that no
    worker consumes its queue.

    Example: rl tasks list --state due
    """
    settings = get_settings()
    with opened_store(settings) as store:
        listing = fetch(store, default_broker(settings), settings, state, limit)
    if as_json:
        print_json(
            {
                "tasks": [row(task, listing.now) for task in listing.tasks],
                "counts": listing.counts,
                "in_broker": listing.in_broker,
            }
        )
    else:
        show(listing)


def fetch(store: Store, broker: Broker, settings: Settings, state: str | None, limit: int) -> Listing:
    """Read every record; keep the newest `limit` of the wanted state."""
    survey = Survey(store)
    now = survey.now()
    counts = dict.fromkeys(STATES, 0)
    queues = {*settings.public_queues}
    wanted: list[Summary] = []
    for summary in survey.all():
        status = summary.status(now)
        counts[status] = counts.get(status, 0) + 1
        queues.add(summary.queue)
        if state is None or status == state:
            wanted.append(summary)
    newest = heapq.nlargest(limit, wanted, key=lambda s: (s.created_at, s.granted_at, s.due_at, s.task_id))
    queues |= {queue for told in store.fleet.workers().values() for queue in told.get("queues", ())}
    return Listing(newest, now, counts, depths(broker, queues - {""}))


def row(task: Summary, now: float) -> dict[str, Any]:
    """Return a task as the JSON of the list has it."""
    return {
        "id": task.task_id,
        "status": task.status(now),
        "actor": task.actor,
        "queue": task.queue,
        "reason": task.reason or None,
        "worker": task.owner or None,
        "attempts": task.attempt,
        "resurrection_count": task.crashes,
        "published": task.published,
        "created_at": iso(task.created_at),
        "started_at": iso(task.granted_at) if task.owner else None,
        "due_at": iso(task.due_at) if not task.ended else None,
    }


def show(listing: Listing) -> None:
    names = (
        "id",
        "status",
        "actor",
        "queue",
        "reason",
        "worker",
        "attempts",
        "resurrection_count",
        "created_at",
        "due_at",
    )
    headers = ("id", "status", "actor", "queue", "reason", "worker", "attempts", "crashes", "created", "due")
    rows = [row(task, listing.now) for task in listing.tasks]
    print_table(headers, ([r[name] for name in names] for r in rows))
    counts = Counter(listing.counts)
    typer.echo(
        f"{len(rows)} shown; all: " + ", ".join(f"{state} {n}" for state, n in counts.items() if n or state in STATES)
    )
    waiting = ", ".join(f"{queue} {n}" for queue, n in listing.in_broker.items() if n)
    typer.echo(f"messages in the broker: {waiting or 'none'}")


@app.command()
def inspect(task_id: TaskId, as_json: AsJson = False) -> None:
    """Tell all there is of one task: state, arguments, every run and what was not ordinary.

    Example: rl tasks inspect 3f6c… --json
    """
    with opened_store() as store:
        data = described(find(store, task_id))
    if as_json:
        print_json(data)
    else:
        show_task(data)


def show_task(data: dict[str, Any]) -> None:
    """Print one task."""
    exception = data["exception"]
    hidden = ("runs", "events", "exception", "state", "args", "kwargs", "fence", "suspect")
    print_fields(
        [
            *((name.replace("_", " "), value) for name, value in data.items() if name not in hidden),
            ("arguments", None if data["args"] is None else _call(data["args"], data["kwargs"])),
            ("exception", exception and f"{exception['type']}: {exception['message']}"),
        ]
    )
    if data["runs"]:
        typer.echo(f"\nended runs ({len(data['runs'])}):")
        names = ("worker", "started_at", "ended_at", "outcome", "detail")
        print_table(names, ([run[name] for name in names] for run in data["runs"]))
    if data["events"]:
        typer.echo("\nevents:")
        for event in data["events"]:
            more = " ".join(f"{k}={v}" for k, v in event.items() if k not in ("at", "event", "task"))
            print_text(f"{event['at']}  {event['event']}  {more}".rstrip())


def _call(args: list[Any], kwargs: dict[str, Any]) -> str:
    return f"({', '.join([*map(repr, args), *(f'{name}={value!r}' for name, value in kwargs.items())])})"


@app.command()
def cancel(task_id: TaskId, as_json: AsJson = False) -> None:
    """Cancel a task. One that runs is asked to stop, which only async actors can.

    Example: rl tasks cancel 3f6c…
    """
    with opened_store() as store:
        outcome = request_cancel(store, task_id)
    if as_json:
        print_json({"id": task_id, "outcome": outcome})
    else:
        print_text(f"{task_id}: {outcome}")
    raise typer.Exit(0 if outcome in ("cancelled", "asked") else 1)


def request_cancel(store: Store, task_id: str) -> str:
    """Cancel a task, or ask its owner to; returns what `relier.cancelling` says."""
    known = store.known(task_id)
    if not known.state:
        raise RelierError(
            f"There is no record of task {task_id!r}. A message that no worker has claimed cannot be named yet."
        )
    return cancel_task(store, task_id, who(), known.shard, dead_letters=True)
