"""`rl dlq`: the dead letters: why each is there, and the way out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from relier.dead_letters import claims, dead_record, failure_of
from relier.errors import RelierError
from relier.store import Record, Store
from relier_cli.lookup import described, find
from relier_cli.opening import opened_store, who
from relier_cli.output import AsJson, iso, print_json, print_table, print_text
from relier_cli.tasks import TaskId, show_task

app = typer.Typer(help="Dead letters: why each is there, and the way out.", no_args_is_help=True)


@app.command("list")
def list_letters(
    limit: Annotated[int, typer.Option(min=1, help="Most dead letters shown.")] = 50, as_json: AsJson = False
) -> None:
    """List dead letters, newest first.

    Example: rl dlq list --limit 10
    """
    with opened_store() as store:
        letters, total = fetch(store, limit)
    if as_json:
        print_json({"dead_letters": letters, "total": total})
        return
    names = ["id", "actor", "queue", "reason", "message", "attempts", "resurrection_count", "dead_lettered_at"]
    headers = ["id", "actor", "queue", "reason", "message", "attempts", "crashes", "dead since"]
    if any(letter["claimed_id"] for letter in letters):
        names += ["claimed_id", "claimed_actor"]
        headers += ["claimed id", "claimed actor"]
    print_table(headers, ([letter[name] for name in names] for letter in letters))
    typer.echo(f"{len(letters)} of {total} dead letters")


def fetch(store: Store, limit: int) -> tuple[list[dict[str, Any]], int]:
    """Return the newest dead letters, and how many there are."""
    places = store.dead_letters(limit)
    by_shard: dict[int, list[str]] = {}
    for task_id, shard, _ in places:
        by_shard.setdefault(shard, []).append(task_id)
    records = {k: r for shard, ids in by_shard.items() for k, r in store.records(ids, shard).items()}
    letters = [
        {
            "id": task_id,
            "actor": record.actor,
            "queue": record.queue,
            "reason": record.reason,
            "message": _message(record),
            "attempts": record.attempt,
            "resurrection_count": record.crashes,
            "created_at": iso(record.created_at),
            "dead_lettered_at": iso(died),
            **claims(record),
        }
        for task_id, _, died in places
        if (record := records.get(task_id))
    ]
    return letters, store.live()["dead_letters"]


def _message(record: Record) -> str | None:
    """Return how its last run ended; of what never ran, why not."""
    if record.runs:
        text = " ".join(record.runs[-1].detail.split())
    else:
        failure = failure_of(record) or {"message": ""}
        text = " ".join(failure["message"].split())
    return (text if len(text) <= 80 else text[:79] + "…") or None


@app.command()
def inspect(task_id: TaskId, as_json: AsJson = False) -> None:
    """Tell all there is of one dead letter: reason, traceback, arguments, runs, and the likely fix.

    Example: rl dlq inspect 3f6c…
    """
    with opened_store() as store:
        data = letter(store, task_id)
    if as_json:
        print_json(data)
        return
    show_task({name: value for name, value in data.items() if name != "likely_fix"})
    if data["exception"]:
        typer.echo()
        print_text(data["exception"]["traceback"])
    typer.echo()
    print_text(f"likely fix: {data['likely_fix']}")


def letter(store: Store, task_id: str) -> dict[str, Any]:
    """Return a dead letter with its likely fix. Raises `RelierError` when the task is none."""
    found = find(store, task_id)
    if found.status != "dead":
        raise RelierError(f"Task {task_id!r} is no dead letter: it is {found.status}.")
    return {**described(found), **dead_record(found.record, found.dead_lettered_at)}


@app.command()
def release(
    task_ids: Annotated[list[str], typer.Argument(metavar="ID…", help="The tasks' ids.")], as_json: AsJson = False
) -> None:
    """Let dead letters run again: attempts begin anew, crashes stay counted, and one run at least is given.

    Example: rl dlq release 3f6c…
    """
    with opened_store() as store:
        outcomes = {task_id: put_back(store, task_id) for task_id in task_ids}
    if as_json:
        print_json([{"id": task_id, "outcome": outcome} for task_id, outcome in outcomes.items()])
    else:
        for task_id, outcome in outcomes.items():
            print_text(f"{task_id}: {outcome}")
    raise typer.Exit(0 if set(outcomes.values()) == {"released"} else 1)


def put_back(store: Store, task_id: str) -> str:
    """Release one dead letter; returns `released`, or why not."""
    try:
        found = find(store, task_id)
    except RelierError:
        return "unknown"
    if found.status != "dead":
        return f"no dead letter, it is {found.status}"
    if found.record.state != "d":
        return "its callbacks are not done yet, try again"
    outcome, _, _ = store.tasks.hold(task_id, "release", who(), found.shard)
    return outcome
