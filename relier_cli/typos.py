"""Names that nothing has: what fits no task because of a typo must not look as if there were none."""

from __future__ import annotations

from collections.abc import Iterable

import typer
from dramatiq import Broker

from relier.dlq import DeadLetters, Wanted
from relier.queues import is_internal
from relier.store import Store
from relier.store.selecting import Wanted as WantedTasks
from relier.store.selecting import select
from relier_cli.output import printable

#: Most names that are told.
NAMED = 20


def tell_unknown_filters(dead: DeadLetters, wanted: Wanted) -> None:
    """Say of each filter that no dead letter fits whatever the others are, which values there are.

    To be called when nothing fits. Where there is no dead letter at all, nothing needs to be said.
    """
    if not (wanted.actor or wanted.queue or wanted.reason or wanted.fingerprint):
        return
    plan, groups = dead.plan(), dead.groups() if wanted.reason or wanted.fingerprint else []
    known = {"actor": {planned.actor for planned in plan}, "queue": {planned.queue for planned in plan}}
    known["reason"] = {group.reason for group in groups}
    known["fingerprint"] = {group.fingerprint for group in groups}
    for name, values in known.items():
        value = getattr(wanted, name)
        begins = name == "fingerprint" and value and any(found.startswith(value) for found in values)
        if value and plan and not begins and value not in values:
            _tell(f"No dead letter has the {name} {value!r}", values)


def tell_unknown_actor(store: Store, broker: Broker, actor: str) -> None:
    """Say that no task, no worker and no actor of this application has a name, and which there are."""
    _, releases, holds = store.fleet.knowledge()
    known = {name for name, declared in broker.actors.items() if not is_internal(declared.queue_name)}
    known |= {*holds.actors, *(name for newest in releases.values() for name in newest)}
    known |= select(store, WantedTasks(actor=actor), 1).actors
    if actor not in known:
        _tell(f"No task and no worker that is known has the actor {actor!r}", known)


def _tell(what: str, values: Iterable[str]) -> None:
    there = sorted(filter(None, values))
    some = ", ".join(there[:NAMED]) + (f" and {len(there) - NAMED} more" if len(there) > NAMED else "")
    typer.echo(printable(f"{what}; there are: {some or 'none'}."), err=True)
