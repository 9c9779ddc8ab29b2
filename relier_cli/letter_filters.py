"""The filters that every command on many dead letters takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from relier.store import Store
from relier.store.letters import Wanted
from relier.store.survey import Survey
from relier_cli.completing import complete_actor, complete_queue
from relier_cli.moments import moment


def _valid(value: str | None) -> str | None:
    if value is not None:
        moment(value, 0.0)
    return value


Limit = Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest first.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What the options say, each one's as its field."""

    actor: Annotated[str | None, typer.Option(help="Only those of this actor.", autocompletion=complete_actor)] = None
    queue: Annotated[str | None, typer.Option(help="Only those of this queue.", autocompletion=complete_queue)] = None
    reason: Annotated[str | None, typer.Option(help="Only those with this reason, such as TypeError.")] = None
    since: Annotated[
        str | None,
        typer.Option(
            callback=_valid, help="Only those that died since: so long ago (30m, 2h, 3d), or a time (ISO 8601)."
        ),
    ] = None
    until: Annotated[
        str | None,
        typer.Option(callback=_valid, help="Only those that died before: so long ago, or a time (ISO 8601)."),
    ] = None
    fingerprint: Annotated[
        str | None, typer.Option(help="Only those with this fingerprint, or one that begins so.")
    ] = None

    def wanted(self, store: Store) -> Wanted:
        """Return what the filters mean. Times are the server's."""
        now = Survey(store).now() if self.since or self.until else 0.0
        began = max(0.0, moment(self.since, now)) if self.since else 0.0
        ended = moment(self.until, now) if self.until else None
        if ended is not None and began > ended:
            raise typer.BadParameter("--since is later than --until, so nothing could fit: exchange them")
        return Wanted(self.actor, self.queue, self.reason, self.fingerprint or None, began, ended)


def filtered(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command whose first parameter is `filters` take one option for each of them, before its own options."""
    options = list(inspect.signature(Filters, eval_str=True).parameters.values())
    _, *own = inspect.signature(command, eval_str=True).parameters.values()

    @functools.wraps(command)
    def run(**given: object) -> None:
        filters = Filters(**{option.name: given.pop(option.name) for option in options})  # type: ignore[arg-type]
        command(filters, **given)

    run.__signature__ = inspect.Signature([*options, *own])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*options, *own)}
    return run
