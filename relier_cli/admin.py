"""`rl admin`: what repairs Relier's own state."""

from __future__ import annotations

from typing import Annotated

import typer

from relier_cli.opening import opened_store
from relier_cli.output import AsJson, print_json

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


def insist(yes: bool, consequence: str) -> None:
    """End the command as misuse (exit code 2) unless the user said yes."""
    if not yes:
        typer.echo(f"{consequence} Add --yes to do it.", err=True)
        raise typer.Exit(2)
