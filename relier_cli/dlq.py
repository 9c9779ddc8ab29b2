"""`rl dlq`: the dead letters: why each is there, and the way out."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from relier.dead_letters import dead_record
from relier.dlq import DeadLetters, Group, Letter, Wanted
from relier.errors import RelierError
from relier.letter_sweep import alarm
from relier.settings import get_settings
from relier.store import Store
from relier_cli import dlq_files, dlq_release
from relier_cli.letter_filters import Filters, filtered
from relier_cli.lookup import claimed, described, inspected
from relier_cli.opening import opened_store
from relier_cli.output import AsJson, iso, print_json, print_table, print_text
from relier_cli.tasks import TaskId, show_task
from relier_cli.typos import tell_unknown_filters

app = typer.Typer(help="Dead letters: why each is there, and the way out.", no_args_is_help=True)

#: Longest text (characters) of a failure in a table.
SHOWN = 80


@app.command("list")
@filtered
def list_letters(
    filters: Filters,
    *,
    limit: Annotated[int, typer.Option(min=1, help="Most dead letters shown.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first.

    Example: rl dlq list --queue default --since 2h
    """
    with opened_store() as store:
        wanted = filters.wanted(store)
        letters, matching, total = fetch(store, wanted, limit)
        if not matching:
            tell_unknown_filters(DeadLetters(store), wanted)
    if as_json:
        print_json({"dead_letters": letters, "matching": matching, "total": total})
    else:
        show(letters, matching, total)


def fetch(store: Store, wanted: Wanted, limit: int) -> tuple[list[dict[str, Any]], int, int]:
    """Return the newest dead letters that are wanted, how many are wanted, and how many there are."""
    dead = DeadLetters(store)
    letters, matching = dead.newest(wanted, limit)
    claims = claimed(store, [(letter.task_id, letter.shard) for letter in letters if not letter.actor])
    nothing = {"claimed_id": None, "claimed_actor": None}
    rows = [{**_row(letter), **claims.get(letter.task_id, nothing)} for letter in letters]
    return rows, matching, matching if wanted.everything else dead.count()


def _row(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.task_id,
        "actor": letter.actor,
        "queue": letter.queue,
        "reason": letter.reason,
        "message": letter.message or None,
        "fingerprint": letter.fingerprint or None,
        "attempts": letter.attempts,
        "resurrection_count": letter.crashes,
        "payload_version": letter.payload_version,
        "created_at": iso(letter.created_at, whole=True),
        "dead_lettered_at": iso(letter.died_at),
    }


def show(letters: list[dict[str, Any]], matching: int, total: int) -> None:
    names = ["id", "actor", "queue", "reason", "message", "attempts", "resurrection_count", "dead_lettered_at"]
    headers = ["id", "actor", "queue", "reason", "message", "attempts", "crashes", "dead since"]
    if any(letter["claimed_id"] for letter in letters):
        names += ["claimed_id", "claimed_actor"]
        headers += ["claimed id", "claimed actor"]
    rows = [{**letter, "message": _short(letter["message"])} for letter in letters]
    print_table(headers, ([row[name] for name in names] for row in rows))
    of_those = "" if matching == total else f"; {matching} match"
    typer.echo(f"{len(letters)} of {total} dead letters{of_those}")
    if text := alarm(total, get_settings()):
        typer.echo(text)


def _short(text: str | None) -> str | None:
    return text if text is None or len(text) <= SHOWN else text[: SHOWN - 1] + "…"


@app.command()
@filtered
def groups(
    filters: Filters,
    *,
    limit: Annotated[int, typer.Option(min=1, help="Most groups shown.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Group dead letters by fingerprint, the largest group first: what fails alike has one cause.

    The trend compares those that died within the last hour with those of the hour before: rising, falling, steady, or
    quiet when there are none.

    Example: rl dlq groups --since 1d
    """
    with opened_store() as store:
        wanted = filters.wanted(store)
        dead = DeadLetters(store)
        found = dead.groups(wanted)
        if not found:
            tell_unknown_filters(dead, wanted)
    letters = sum(group.count for group in found)
    if as_json:
        print_json({"groups": [_group(group) for group in found[:limit]], "total": len(found), "matching": letters})
        return
    headers = ("fingerprint", "count", "actor", "reason", "first seen", "last seen", "trend", "last message")
    print_table(headers, [_group_row(group) for group in found[:limit]])
    typer.echo(f"{min(limit, len(found))} of {len(found)} groups; {letters} dead letters")


def _group(group: Group) -> dict[str, Any]:
    return {
        "fingerprint": group.fingerprint or None,
        "actor": group.actor,
        "reason": group.reason,
        "count": group.count,
        "first_seen": iso(group.first_seen),
        "last_seen": iso(group.last_seen),
        "last_hour": group.last_hour,
        "hour_before": group.hour_before,
        "trend": group.trend,
        "sample_id": group.sample_id,
        "sample_message": group.sample_message or None,
    }


def _group_row(group: Group) -> tuple[Any, ...]:
    trend = group.trend if group.trend == "quiet" else f"{group.trend} ({group.hour_before} → {group.last_hour})"
    times = iso(group.first_seen), iso(group.last_seen)
    message = _short(group.sample_message)
    return group.fingerprint, group.count, group.actor, group.reason, *times, trend, message


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
    found = inspected(store, task_id)
    if found.status != "dead":
        raise RelierError(f"Task {task_id!r} is no dead letter: it is {found.status}.")
    return {**described(found), **dead_record(found.record, found.dead_lettered_at)}


app.command()(dlq_release.release)
app.command("retry-all")(dlq_release.retry_all)
app.command()(dlq_files.export)
app.command("import")(dlq_files.import_letters)
app.command()(dlq_release.purge)
