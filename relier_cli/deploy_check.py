"""What `rl config check-deploy` imports and prints."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import dramatiq
import typer
from dramatiq import Broker
from dramatiq.errors import BrokerConnectionError

from relier.boot import use_default_broker
from relier.brokers.adapters import adapter_of
from relier.deploy_check import PLACES, Kind, Outlook, outlook
from relier.errors import RelierError
from relier.knowledge import actors_of
from relier.schema import migrations
from relier.settings import Settings
from relier_cli.opening import import_path, opened_store
from relier_cli.output import print_table, print_text


def declared_actors(modules: Iterable[str], settings: Settings) -> Broker:
    """Import actor modules; returns the broker. Raises `RelierError` for one that fails, or when none has actors."""
    import_path()
    use_default_broker(settings)
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            text = f"The actor module {name!r} cannot be imported: {type(error).__name__}: {error}"
            raise RelierError(text) from None
    broker = dramatiq.get_broker()
    if not actors_of(broker):
        raise RelierError("No actors: name the modules of the new code, as arguments or in RELIER_ACTORS.")
    return broker


def look_ahead(broker: Broker, settings: Settings) -> Outlook:
    """Look at store and broker. Raises `RelierError` when one of them is away."""
    try:
        with opened_store(settings) as store:
            return outlook(store, broker, migrations)
    except BrokerConnectionError as error:
        raise RelierError(f"Relier cannot reach the broker ({adapter_of(broker).place()}): {error}") from None
    finally:
        broker.close()


def described(found: Outlook) -> dict[str, Any]:
    """Return the outlook as JSON has it."""
    return {
        "ok": not found.without_path,
        "work": [_row(found, kind) for kind in sorted(found.counts)],
        "unread": found.unread,
        "possible": [
            {"actor": kind.actor, "version": kind.version, "obstacle": found.code.obstacle(kind)}
            for kind in found.possible
        ],
        "undecodable": found.undecodable,
        "unusable_migrations": [asdict(unusable) for unusable in found.unusable],
    }


def _row(found: Outlook, kind: Kind) -> dict[str, Any]:
    obstacle = found.code.obstacle(kind)
    return {
        "actor": kind.actor,
        "version": kind.version,
        "queue": kind.queue or None,
        **{place: found.counts[kind][place] for place in PLACES},
        "path": None if obstacle else found.code.path(kind),
        "obstacle": obstacle or None,
    }


def show_outlook(found: Outlook, report: dict[str, Any]) -> None:
    """Print the outlook for people; what is wrong comes last."""
    rows = [
        [row["actor"], row["version"], row["queue"], *(row[place] for place in PLACES), row["path"] or "none"]
        for row in report["work"]
    ]
    if rows:
        print_table(("actor", "version", "queue", *PLACES, "path"), rows)
    if found.undecodable:
        print_text(f"{found.undecodable} messages or dead letters cannot be decoded: no code runs them.")
    for queue, count in sorted(found.unread.items()):
        number = "messages" if count is None else f"{count} messages"
        print_text(f"unknown: {number} in the queue {queue!r}: this broker cannot be read without consuming.")
    for kind in found.possible:
        print_text(f"possible: {_named(kind)} is what a living worker has: {found.code.obstacle(kind)}.")
    for unusable in found.unusable:
        who = f"the migration of {unusable.actor!r} from version {unusable.from_version}"
        print_text(f"warning: {who} can never run: {unusable.why}.")
    for kind in found.without_path:
        print_text(f"no path: {_named(kind)}: {found.code.obstacle(kind)}.")
    typer.echo(_verdict(found))


def _named(kind: Kind) -> str:
    return f"{kind.actor!r} version {kind.version}"


def _verdict(found: Outlook) -> str:
    if stuck := len(found.without_path):
        return f"{stuck} kind{'s' * (stuck > 1)} of work without a path to this code."
    known = "Everything that can be read has" if found.unread else "Everything has"
    return f"{known} a path to this code."
