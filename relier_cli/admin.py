"""`rl admin`: what repairs Relier's own state."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from relier.errors import RelierError
from relier.fleet_checks import depths
from relier.queue_states import QueueStates
from relier.settings import get_settings
from relier.store import Store
from relier.store.resetting import Resetting
from relier_cli.application import Application, application
from relier_cli.opening import opened_store
from relier_cli.output import AsJson, print_json, print_text

app = typer.Typer(help="Repair Relier's own state.", no_args_is_help=True)

#: The option that every destructive command needs.
Yes = Annotated[bool, typer.Option("--yes", help="Do it: nothing is done without.")]


@app.callback()
def _group() -> None:
    """Repair Relier's own state."""


@app.command("reset-admission")
def reset_admission(yes: Yes = False, as_json: AsJson = False) -> None:
    """Let every limit of admission begin anew. Permits that processes hold at this moment stay valid until they end.

    Example: rl admin reset-admission --yes
    """
    insist(yes, "This lets more tasks through than the limits say, until a window has passed.")
    with opened_store() as store:
        limits = store.admissions.forget()
    if as_json:
        print_json({"limits": limits})
    else:
        typer.echo(f"{limits} limits begin anew.")


@app.command("purge-locks")
def purge_locks(
    completed: Annotated[bool, typer.Option("--completed", help="Forget what has completed as well.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Free every idempotency key and lock that somebody holds; of the tasks that wait for a key one goes on.

    Whoever holds one and still lives goes on as well: then two do the same work. What has completed stays remembered
    unless --completed is given.

    Example: rl admin purge-locks --yes
    """
    insist(yes, "This lets work that is going on be done a second time.")
    with opened_store() as store:
        locks, keys = store.locks.purge(completed=completed)
    if as_json:
        print_json({"locks": locks, "keys": keys})
    else:
        typer.echo(f"{locks} locks and {keys} keys of tasks are free.")


@app.command()
def reset(
    force: Annotated[bool, typer.Option("--force", help="Do it although workers are alive.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Remove everything that Relier keeps in Redis for its namespace, and nothing else: no message, no other namespace.

    Delayed and retrying tasks, dead letters, results, keys and purge marks are gone then, and nobody knows any more
    what has run. Messages that are still in the broker run as if they had just been enqueued: purge them before.

    Example: rl admin reset --yes
    """
    settings = get_settings()
    known = application(settings)
    with opened_store(settings) as store:
        before = _contents(store, known, {*settings.public_queues, *known.queues})
        insist(yes, f"This forgets {_told(before)}. {_about_messages(before['messages'])}")
        alive = [worker for worker, there in store.fleet.present(sorted(store.fleet.workers())).items() if there]
        if alive and not force:
            raise RelierError(
                f"{len(alive)} workers are alive ({', '.join(alive[:5])}{', …' if alive[5:] else ''}): stop them first."
                " With --force what they run is done without a record, and may be done again."
            )
        removed = Resetting(store.runner, store.keys).remove()
    if as_json:
        print_json({"namespace": settings.namespace, "keys": removed, "workers_alive": alive, **before})
    else:
        print_text(f"{removed} keys of namespace {settings.namespace!r} are removed, with {_told(before)}.")
        print_text(_about_messages(before["messages"]))


def _contents(store: Store, known: Application, queues: set[str]) -> dict[str, Any]:
    live = store.live()
    names = QueueStates(store, known.broker, queues).names()
    return {
        "records": live["records"],
        "waiting": live["due"],
        "dead_letters": live["dead_letters"],
        "messages": {queue: depth for queue, depth in depths(known.broker, names).items() if depth},
    }


def _told(before: dict[str, Any]) -> str:
    parts = f"{before['waiting']} that wait and {before['dead_letters']} dead letters"
    return f"{before['records']} tasks ({parts} among them)"


def _about_messages(messages: dict[str, int]) -> str:
    if not messages:
        return "No message is known to wait in the broker."
    waiting = ", ".join(f"{queue} {depth}" for queue, depth in sorted(messages.items()))
    return (
        f"Messages in the broker ({waiting}) stay, and run as if they had just been enqueued:"
        " rl queue purge --all --yes removes them, before a reset as well as after it."
    )


def insist(yes: bool, consequence: str) -> None:
    """End the command as misuse (exit code 2) unless the user said yes."""
    if not yes:
        typer.echo(f"{consequence} Add --yes to do it.", err=True)
        raise typer.Exit(2)
