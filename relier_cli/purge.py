"""`rl queue purge`: clears queues, actors or everything for good, wherever copies of the tasks are."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from relier.errors import RelierError
from relier.purging import Purged, Purging, Selection
from relier.queue_states import QueueStates
from relier.queues import RECOVERY_QUEUE
from relier.settings import get_settings
from relier.store.purging import KEPT, MOST, TooManyMarksError
from relier_cli.application import application
from relier_cli.completing import complete_actor, complete_queue
from relier_cli.opening import opened_store, who
from relier_cli.output import AsJson, iso, number, print_json, print_text
from relier_cli.typos import tell_unknown_actor

Queues = Annotated[
    list[str] | None, typer.Argument(metavar="[QUEUE…]", help="The queues' names.", autocompletion=complete_queue)
]
Actor = Annotated[
    str,
    typer.Option(help="Only tasks of this actor; in every queue when none is named.", autocompletion=complete_actor),
]
OlderThan = Annotated[
    str | None, typer.Option(metavar="AGE", help="Only tasks that were enqueued longer ago: 90s, 30m, 2h, 1d.")
]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(text: str | None) -> float:
    """Read a length of time: a number and its unit; seconds without one."""
    if text is None:
        return 0.0
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if found is None or float(found[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no length of time such as 90s, 30m, 2h or 1d")
    return float(found[1]) * _UNITS[found[2] or "s"]


def purge(
    queues: Queues = None,
    *,
    actor: Actor = "",
    older_than: OlderThan = None,
    everything: Annotated[bool, typer.Option("--all", help="Tasks of every queue and actor.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be purged; change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it: without, it says what it would do.")] = False,
    as_json: AsJson = False,
) -> None:
    """Discard the tasks of queues, of an actor, or all: queued, delayed, scheduled, retrying, and unacknowledged ones.

    A mark in the store refuses them whenever a copy comes later, on any broker; what the broker lets be read is removed
    and counted. What is running goes on, but not its retry. Dead letters stay (`rl dlq purge`), and their release is
    exempt. What is enqueued once this has ended is not concerned.

    Example: rl queue purge default --older-than 2h --yes
    """
    selection = _selection(queues or [], actor, _seconds(older_than), everything)
    settings = get_settings()
    known = application(settings)
    with opened_store(settings) as store:
        states = QueueStates(store, known.broker, {*settings.public_queues, *known.queues})
        names = _insist_on_known(states, selection)
        purging = Purging(store, known.broker, settings, selection, who())
        done = _purge(purging, sorted({*names, RECOVERY_QUEUE}), yes and not dry_run)
        if actor and not done.tasks:
            tell_unknown_actor(store, known.broker, actor)
    warnings = known.trouble + _trouble(done, yes and not dry_run)
    if as_json:
        print_json(_data(selection, done, yes and not dry_run, warnings))
    else:
        _show(done, yes and not dry_run, warnings)
    if not yes and not dry_run:
        typer.echo("Nothing was done. Add --yes to do it.", err=True)
        raise typer.Exit(2)
    raise typer.Exit(1 if done.trouble else 0)


def _selection(queues: list[str], actor: str, older_than: float, everything: bool) -> Selection:
    if everything and (queues or actor):
        raise typer.BadParameter("--all purges every queue and actor: name none beside it.")
    if not (everything or queues or actor):
        raise typer.BadParameter("Name queues, or --actor NAME, or --all.")
    return Selection(tuple(dict.fromkeys(queues)), actor, older_than)


def _insist_on_known(states: QueueStates, selection: Selection) -> set[str]:
    """Return the queues that may have what is to be purged. Raises `RelierError` for a name that nobody knows."""
    known = states.names()
    unknown = [name for name in selection.queues if name not in known and not states.is_in_broker(name)]
    if unknown:
        there = ", ".join(map(repr, sorted(known)))
        raise RelierError(f"Nobody knows the queue {', '.join(map(repr, unknown))}. There are {there}.")
    return set(selection.queues) or known


def _purge(purging: Purging, queues: list[str], really: bool) -> Purged:
    if not really:
        return purging.preview(queues)
    try:
        return purging.run(queues)
    except TooManyMarksError:
        days = KEPT / 86_400
        raise RelierError(
            f"{MOST} purge marks are kept at once, each for {days:.0f} days: purge whole queues, or --all, instead."
        ) from None


def _trouble(done: Purged, really: bool) -> list[str]:
    if not done.trouble:
        return []
    later = " Its messages are checked when they are delivered; repeat the command to remove them." if really else ""
    return [f"The broker does not answer: {done.trouble}{later}"]


def _data(selection: Selection, done: Purged, really: bool, warnings: list[str]) -> dict[str, Any]:
    return {
        "done": really,
        "queues": list(selection.queues),
        "actor": selection.actor or None,
        "before": iso(done.before),
        "tasks": done.tasks,
        "in_broker": done.drained,
        "in_store": done.in_store,
        "late_copies": done.late_copies,
        "unread_messages": done.unread,
        "warnings": warnings,
    }


def _show(done: Purged, really: bool, warnings: list[str]) -> None:
    queues = ", ".join(f"{queue} {count}" for queue, count in sorted((done.drained or {}).items()))
    found = f"{sum((done.drained or {}).values())} in the broker{f' ({queues})' if queues else ''}"
    parts = ([found] if done.drained is not None else []) + [f"{done.in_store} in the store"]
    print_text(f"{number(done.tasks, 'task')} {'purged' if really else 'would be purged'}: {', '.join(parts)}.")
    if done.late_copies:
        verb = ("was" if done.late_copies == 1 else "were") + " removed" if really else "would be removed"
        print_text(f"{number(done.late_copies, 'message')} of tasks that had ended {verb} as well.")
    if done.drained is None:
        print_text(_unread(done, really))
    ends = "ends" if really else "would end"
    print_text(f"Not among them: what workers have fetched and not begun. It {ends} as purged when they begin it.")
    verb = "runs" if really else "would run"
    print_text(
        f"Nothing that was enqueued before {iso(done.before)} {verb} from then on: what is delivered later is checked"
        " against the mark. What is running goes on, but is not retried; dead letters stay."
    )
    for warning in warnings:
        print_text(warning)


def _unread(done: Purged, really: bool) -> str:
    if really:
        return "This broker cannot be drained: its messages end as purged when a worker gets them."
    messages = "An unknown number of messages" if done.unread is None else number(done.unread, "message")
    return f"{messages} in the broker would be looked at: that cannot be done without taking them."
