"""The filters that every command on many dead letters takes."""

from __future__ import annotations

from typing import Annotated

import typer

from relier.store import Store
from relier.store.letters import Wanted
from relier.store.survey import Survey
from relier_cli.moments import moment


def _valid(value: str | None) -> str | None:
    if value is not None:
        moment(value, 0.0)
    return value


Actor = Annotated[str | None, typer.Option(help="Only those of this actor.")]
Queue = Annotated[str | None, typer.Option(help="Only those of this queue.")]
Reason = Annotated[str | None, typer.Option(help="Only those with this reason, such as TypeError.")]
Since = Annotated[
    str | None,
    typer.Option(callback=_valid, help="Only those that died since: so long ago (30m, 2h, 3d), or a time (ISO 8601)."),
]
Until = Annotated[
    str | None, typer.Option(callback=_valid, help="Only those that died before: so long ago, or a time (ISO 8601).")
]
Fingerprint = Annotated[str | None, typer.Option(help="Only those with this fingerprint, or one that begins so.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest first.")]


def wanted(
    store: Store,
    *,
    actor: str | None,
    queue: str | None,
    reason: str | None,
    since: str | None,
    until: str | None,
    fingerprint: str | None,
) -> Wanted:
    """Return what the filters mean. Times are the server's."""
    now = Survey(store).now() if since or until else 0.0
    began = max(0.0, moment(since, now)) if since else 0.0
    return Wanted(actor, queue, reason, fingerprint or None, began, moment(until, now) if until else None)
