"""`rl tasks`: what runs, what waits and why, and all that is known of one task."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from dramatiq import Broker

from relier.brokers import default_broker
from relier.cancelling import cancel_task
from relier.fleet_checks import depths, found_queues
from relier.retrying import RETRIED, retry_task
from relier.retrying import TOLD as RETRY_TOLD
from relier.settings import Settings, get_settings
from relier.store import Store
from relier.store.selecting import Wanted, select
from relier.store.survey import Summary, Survey
from relier_cli.completing import complete_actor, complete_queue, one_of
from relier_cli.inflight import inflight
from relier_cli.lookup import claimed, described, insist_on_whole, inspected
from relier_cli.moments import moment
from relier_cli.opening import opened_store, who
from relier_cli.output import AsJson, iso, print_fields, print_json, print_table, print_text
from relier_cli.timeline import print_timeline

app = typer.Typer(help="Tasks: what runs, what waits and why.", no_args_is_help=True)

STATES = ("scheduled", "due", "queued", "running", "dead", "completed", "discarded", "marked")

TaskId = Annotated[str, typer.Argument(metavar="ID", help="The task's id, the whole of it.")]


@dataclass(frozen=True, slots=True)
class Listing:
    """The newest tasks of a state, and how many there are of each."""

    tasks: list[Summary]
    now: float
    counts: dict[str, int]
    #: Messages that wait in the broker; before their first claim they have no record.
    in_broker: dict[str, int]
    #: What refused messages claim to be.
    claimed: dict[str, dict[str, str | None]]

    def rows(self) -> list[dict[str, Any]]:
        """Return the tasks as the JSON of the list has them."""
        nothing = {"claimed_id": None, "claimed_actor": None}
        return [{**row(task, self.now), **self.claimed.get(task.task_id, nothing)} for task in self.tasks]


def _moment(value: str | None) -> str | None:
    if value is not None:
        moment(value, 0.0)
    return value


def _state(value: str | None) -> str | None:
    if value is not None and value not in STATES:
        raise typer.BadParameter(f"{value!r} is none of {', '.join(STATES)}")
    return value


@app.command("list")
def list_tasks(
    state: Annotated[
        str | None,
        typer.Option(callback=_state, help=f"One of {', '.join(STATES)}. Default: all.", autocompletion=one_of(STATES)),
    ] = None,
    *,
    actor: Annotated[str | None, typer.Option(help="Only those of this actor.", autocompletion=complete_actor)] = None,
    queue: Annotated[str | None, typer.Option(help="Only those of this queue.", autocompletion=complete_queue)] = None,
    reason: Annotated[str | None, typer.Option(help="Only those with this reason, such as 'no consumer'.")] = None,
    since: Annotated[
        str | None,
        typer.Option(callback=_moment, help="Only those made since: so long ago (30m, 2h, 3d), or a time (ISO 8601)."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most tasks shown.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List tasks that have a record, newest first.

    A task has one from its first claim on, or from its push when it is delayed; before, it is a message in the
    broker, and is counted only. `due` is what waits for the resurrector; the reason `no consumer` says that no
    worker consumes its queue. The counts are of all tasks, whatever is shown.

    Example: rl tasks list --state due --queue reports --since 2h
    """
    settings = get_settings()
    with opened_store(settings) as store:
        began = int(moment(since, Survey(store).now())) if since else None
        wanted = Wanted(state, actor, queue, reason, began)
        listing = fetch(store, default_broker(settings), settings, wanted, limit)
    if as_json:
        print_json(
            {
                "tasks": listing.rows(),
                "counts": listing.counts,
                "in_broker": listing.in_broker,
            }
        )
    else:
        show(listing)


def fetch(store: Store, broker: Broker, settings: Settings, wanted: Wanted, limit: int) -> Listing:
    """Let the store look through its records, and count what waits in the broker."""
    found = select(store, wanted, limit)
    consumed = {queue for told in store.fleet.workers().values() for queue in told.get("queues", ())}
    queues = {*settings.public_queues, *found_queues(broker), *found.queues, *consumed}
    refused = [(task.task_id, task.shard) for task in found.tasks if not task.actor and task.state == "d"]
    counts = {**dict.fromkeys(STATES, 0), **found.by_status}
    return Listing(found.tasks, Survey(store).now(), counts, depths(broker, queues), claimed(store, refused))


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
        "created_at": iso(task.created_at, whole=True),
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
    rows = listing.rows()
    for r in rows:
        r["actor"] = r["actor"] or (r["claimed_actor"] and f"(claims {r['claimed_actor']})")
    print_table(headers, ([r[name] for name in names] for r in rows))
    counts = Counter(listing.counts)
    typer.echo(
        f"{len(rows)} shown; all: " + ", ".join(f"{state} {n}" for state, n in counts.items() if n or state in STATES)
    )
    waiting = ", ".join(f"{queue} {n}" for queue, n in listing.in_broker.items() if n)
    typer.echo(f"messages in the broker: {waiting or 'none'}")


@app.command()
def inspect(
    task_id: Annotated[
        str, typer.Argument(metavar="ID", help="The task's id, or how it begins: 6 characters at least.")
    ],
    as_json: AsJson = False,
) -> None:
    """Tell all there is of one task: state, arguments, and all that happened to it in the order of time.

    It prints the task's arguments: mind who looks.

    Example: rl tasks inspect 3f6c7a
    """
    with opened_store() as store:
        data = described(inspected(store, task_id))
    if as_json:
        print_json(data)
    else:
        show_task(data)


#: What is told only when it is not zero.
_COUNTS = ("identical_failures", "published")
#: What the timeline tells, or nobody asks for at night.
_HIDDEN = (
    "runs",
    "events",
    "timeline",
    "exception",
    "state",
    "args",
    "kwargs",
    "fence",
    "suspect",
    "started_at",
    "due_at",
)


def show_task(data: dict[str, Any]) -> None:
    """Print one task."""
    exception = data["exception"]
    shown = {name: value for name, value in data.items() if name not in _HIDDEN and (value or name not in _COUNTS)}
    print_fields(
        [
            *((name.replace("_", " "), value) for name, value in shown.items()),
            ("arguments", None if data["args"] is None else _call(data["args"], data["kwargs"])),
            ("exception", exception and f"{exception['type']}: {exception['message']}"),
        ]
    )
    typer.echo()
    print_timeline(data)


def _call(args: list[Any], kwargs: dict[str, Any]) -> str:
    return f"({', '.join([*map(repr, args), *(f'{name}={value!r}' for name, value in kwargs.items())])})"


@app.command()
def cancel(task_id: TaskId, as_json: AsJson = False) -> None:
    """Cancel a task: one that waits never runs, one that runs is interrupted and runs no more. May be repeated.

    Coroutines are cancelled at their next await, functions interrupted at their next line of Python. A dead letter is
    discarded. The answer says what was asked for; the task's status says what came of it.

    Example: rl tasks cancel 3f6c7a1e-…
    """
    with opened_store() as store:
        insist_on_whole(store, task_id)
        outcome: str = cancel_task(store, task_id, who(), None, dead_letters=True)
    _answer(task_id, outcome, CANCELLED, as_json, ok=outcome != "ended")


#: What became of a request to cancel a task, in words for people.
CANCELLED = {
    "cancelled": "cancelled: it never runs again",
    "marked": "marked: nothing is known of it. If it waits in the broker it will not run; it may have run and been"
    " forgotten",
    "asked": "asked: its worker was told to interrupt it, and it does not run again. `rl tasks inspect` shows what came"
    " of it",
    "running": "running: its worker does not listen now, and hears of it within 10 s of being back; it does not run"
    " again",
    "ended": "ended: it had completed or was discarded before",
}


@app.command()
def retry(task_id: TaskId, as_json: AsJson = False) -> None:
    """Let a task run now: a dead letter is released, one that waits for its time or a retry is due at once.

    Example: rl tasks retry 3f6c7a1e-…
    """
    with opened_store() as store:
        insist_on_whole(store, task_id)
        outcome = retry_task(store, task_id, who())
    _answer(task_id, outcome, RETRY_TOLD, as_json, ok=outcome in RETRIED)


def _answer(task_id: str, outcome: str, told: dict[str, str], as_json: bool, *, ok: bool) -> None:
    if as_json:
        print_json({"id": task_id, "outcome": outcome, "told": told[outcome]})
    else:
        print_text(f"{task_id}: {told[outcome]}")
    raise typer.Exit(0 if ok else 1)


app.command()(inflight)
