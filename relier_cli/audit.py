"""`rl audit`: does the account add up: whatever was pushed has ended, or is somewhere where it will go on."""

from __future__ import annotations

from typing import Any

import typer

from relier.account import COUNTERS, Account, Gap, Line, QueueAccount
from relier.auditing import take_account
from relier.brokers import default_broker
from relier.settings import get_settings
from relier_cli.opening import opened_store
from relier_cli.output import AsJson, number, print_fields, print_json, print_table, printable


def audit(as_json: AsJson = False) -> None:
    """Check that pushed = completed + dead letters + discarded + on its way, by queue and actor. Exits 1 when not so.

    On its way is what waits or runs, and what only the broker knows of: tasks that nobody claimed yet have no record,
    so they are counted and not named. While tasks run, a shard is read again until its counters stood still during
    the look; one that never does is allowed as many tasks of difference as steps were made meanwhile.

    Example: rl audit --json
    """
    settings = get_settings()
    with opened_store(settings) as store:
        account = take_account(store, default_broker(settings), settings)
    if as_json:
        print_json(as_data(account))
    else:
        show(account)
    raise typer.Exit(0 if account.adds_up else 1)


def as_data(account: Account) -> dict[str, Any]:
    counted = account.counters
    reasons = {name.partition(":")[2]: n for name, n in sorted(counted.items()) if name.startswith("discarded:")}
    others = sorted(name for name in counted if name not in COUNTERS and ":" not in name)  # of a newer version
    return {
        "ok": account.adds_up,
        "pushed": counted["accepted"] + account.without_record,
        "accepted": counted["accepted"],
        "completed": counted["completed"],
        "dead_letters": counted["dead"] - counted["dlq_left"],
        "discarded": counted["discarded"],
        "discarded_by_reason": reasons,
        "on_the_way": account.on_the_way,
        "waiting": account.total("waiting"),
        "running": account.total("running"),
        "without_record": account.without_record,
        "difference": account.difference,
        "in_motion": account.in_motion,
        "unattributed": account.unattributed,
        "wrong_shards": account.wrong_shards,
        "wrong": [gap._asdict() for gap in account.gaps],
        "lost": [lost._asdict() for lost in account.lost],
        "stranded": account.stranded,
        "newer_format": account.newer,
        "dlq": account.dead_letters,
        "counters": {name: counted[name] for name in (*COUNTERS, *others)},
        "tasks": [_line(line) for _, line in sorted(account.lines.items())],
        "queues": [_queue(queue) for queue in account.queues.values()],
        "queue_depths": {name: queue.messages for name, queue in account.queues.items()},
    }


def _line(line: Line) -> dict[str, Any]:
    return {name: getattr(line, name) for name in _COLUMNS}


def _queue(queue: QueueAccount) -> dict[str, Any]:
    names = ("queue", "messages", "held", "recorded", "without_record")
    return {name: getattr(queue, name) for name in names}


#: What is told of each queue and actor.
_COLUMNS = (
    *("queue", "actor", "accepted", "completed", "dead_letters", "discarded"),
    *("waiting", "running", "difference"),
)
#: The balance, from the top.
_BALANCE = (
    *("pushed", "accepted", "completed", "dead_letters", "discarded", "on_the_way"),
    *("waiting", "running", "without_record", "difference", "in_motion"),
)
#: Those that the text tells above the others.
_TOLD = ("accepted", "completed", "discarded")


def show(account: Account) -> None:
    data = as_data(account)
    print_fields((name.replace("_", " "), data[name]) for name in _BALANCE)
    if lines := data["tasks"]:
        print_table([name.replace("_", " ") for name in _COLUMNS], [list(line.values()) for line in lines])
    counters = {name: n for name, n in data["counters"].items() if name not in _TOLD}
    counters |= {f"discarded, {why}": n for why, n in data["discarded_by_reason"].items()}
    typer.echo("counters: " + (", ".join(f"{name} {n}" for name, n in counters.items() if n) or "all zero"))
    show_queues(account)
    if account.newer:
        typer.echo(f"{account.newer} records are of a newer format.")
    if account.unattributed:
        typer.echo(
            f"{account.unattributed} steps were counted by a version without statistics: not by queue and actor."
        )
    show_wrong(account)


def show_queues(account: Account) -> None:
    """Tell what the broker has, and how much of it may belong to tasks with a record."""
    told = [_about_queue(queue) for queue in account.queues.values() if queue.messages or queue.held]
    typer.echo(f"messages in the broker: {', '.join(told) or 'none'}")


def _about_queue(queue: QueueAccount) -> str:
    more = [f"{queue.held} held by workers"] if queue.held else []
    more += [f"up to {queue.recorded} of tasks with a record"] if queue.recorded else []
    text = f"{printable(queue.queue)} {queue.messages}"
    return f"{text} ({', '.join(more)})" if more else text


def show_wrong(account: Account) -> None:
    for gap in account.gaps:
        typer.echo(f"WRONG: {_where(gap)} {_what(gap.difference)}.")
    for lost in account.lost:
        typer.echo(f"WRONG: task {lost.task_id} has no record, but shard {lost.shard:02} has it as {lost.found_in}.")
    for task_id in account.stranded:
        typer.echo(f"WRONG: nothing will move task {task_id} on (rl tasks inspect {task_id}).")
    typer.echo("Every accepted task is accounted for." if account.adds_up else "The account does not add up.")


def _where(gap: Gap) -> str:
    if not gap.queue and not gap.actor:
        return f"shard {gap.shard:02} does not add up:"
    return f"shard {gap.shard:02}, queue {printable(gap.queue)}, actor {printable(gap.actor)} does not add up:"


def _what(difference: int) -> str:
    if difference > 0:
        return (
            f"{number(difference, 'accepted task')} neither ended nor {'has' if difference == 1 else 'have'} a record"
        )
    return f"{number(-difference, 'task')} more ended or {'has' if difference == -1 else 'have'} a record than accepted"
