"""`rl admission`: is the cluster shedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import typer
from dramatiq import Broker

from relier.brokers import default_broker
from relier.fleet_checks import depths, found_queues
from relier.settings import Settings, get_settings
from relier.store import Store
from relier.store.admissions import GLOBAL, Limit, Usage
from relier_cli.opening import opened_store
from relier_cli.output import AsJson, print_json, print_table, print_text

app = typer.Typer(help="Admission: is the cluster shedding.", no_args_is_help=True)

#: Counters of the store, and what they are called here.
COUNTERS = {"admitted": "admitted", "rejected": "admission_rejected", "failed_open": "admission_failed_open"}


@app.callback()
def _group() -> None:
    """Admission: is the cluster shedding."""


@dataclass(frozen=True, slots=True)
class Depth:
    """How many tasks wait in a queue, and how many may."""

    queue: str
    waiting: int
    most: int

    @property
    def sheds(self) -> bool:
        return self.waiting >= self.most


@dataclass(frozen=True, slots=True)
class Admitted:
    """How far every limit is used, and what was counted so far."""

    everything: Usage
    others: list[Usage]
    depths: list[Depth]
    counters: dict[str, int]


@app.command()
def status(as_json: AsJson = False) -> None:
    """Tell how far the limits of admission are used: the global one, those of actors and keys in use, and of queues.

    Example: rl admission status
    """
    settings = get_settings()
    with opened_store(settings) as store:
        found = fetch(store, default_broker(settings), settings)
    if as_json:
        print_json(
            {
                **described(found.everything),
                "limits": list(map(described, found.others)),
                "queues": list(map(described_depth, found.depths)),
                **found.counters,
            }
        )
        return
    deep = ", ".join(depth.queue for depth in found.depths if depth.sheds)
    print_text(verdict(found.everything) + (f", SHEDDING for queue {deep}" if deep else ""))
    if found.others:
        print_table(
            ("tasks of", "used", "limit", "window", "state", "opens in"),
            ((_scope(u.scope), u.used, u.most, f"{u.window:g}s", _state(u), _opening(u)) for u in found.others),
        )
    if found.depths:
        rows = ((depth.queue, depth.waiting, depth.most, _state(depth)) for depth in found.depths)
        print_table(("queue", "waiting", "limit", "state"), rows)
    typer.echo(", ".join(f"{name.replace('_', ' ')} {count}" for name, count in found.counters.items()))


def fetch(store: Store, broker: Broker, settings: Settings) -> Admitted:
    """Return what the store knows; of a limit that nobody uses, what the settings say."""
    usages = store.admissions.usages()
    mine = Limit(GLOBAL, settings.admission_limit, settings.admission_window)
    unused = Usage(GLOBAL, 0, mine.most, mine.window, 0.0)
    everything = next((u for u in usages if u.scope == GLOBAL and abs(u.window - mine.window) < 1e-6), unused)
    counted = store.counters()
    counters = {name: counted.get(counter, 0) for name, counter in COUNTERS.items()}
    others = [usage for usage in usages if usage is not everything and (usage.used or usage.sheds)]
    return Admitted(everything, others, _depths(store, broker, settings), counters)


def _depths(store: Store, broker: Broker, settings: Settings) -> list[Depth]:
    """Return the queues in which tasks wait, where their depth is limited and the broker can tell it."""
    if not settings.admission_max_depth:
        return []
    consumed = {queue for told in store.fleet.workers().values() for queue in told.get("queues", ())}
    found = depths(broker, {*settings.public_queues, *consumed, *found_queues(broker)} - {""})
    return [Depth(queue, waiting, settings.admission_max_depth) for queue, waiting in found.items() if waiting]


def verdict(usage: Usage) -> str:
    """Return the line that people and dashboards look for."""
    return f"{_state(usage)} ({usage.used}/{usage.most}, {usage.used / usage.most:.1%})"


def described(usage: Usage) -> dict[str, Any]:
    """Return a limit as the JSON has it."""
    return {
        "scope": usage.scope,
        "state": _state(usage).lower(),
        "used": usage.used,
        "limit": usage.most,
        "window": usage.window,
        "opens_in": usage.opens_in,
    }


def described_depth(depth: Depth) -> dict[str, Any]:
    """Return a queue's depth as the JSON has it."""
    return {"queue": depth.queue, "state": _state(depth).lower(), "waiting": depth.waiting, "limit": depth.most}


def _state(limited: Usage | Depth) -> str:
    return "SHEDDING" if limited.sheds else "ALLOWING"


def _opening(usage: Usage) -> str | None:
    return f"{usage.opens_in:.1f}s" if usage.sheds else None


def _scope(scope: str) -> str:
    kind, _, rest = scope.partition(":")
    if kind == "key":
        actor, _, key = rest.partition(":")
        return f"actor {actor}, key {key}"
    return f"{kind} {rest}".rstrip()
