"""Look at what is held: a paused queue is easily forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import redis

from relier.preflight import Check, Finding
from relier.settings import Settings
from relier.store import Store
from relier.store.holds import Hold


def holds_check(store: Store) -> Check:
    """Return the check that names paused queues and parked actors."""

    def check(_: redis.Redis, __: Settings) -> Iterator[Finding]:
        holds = store.fleet.holds()
        for name, hold in sorted(holds.queues.items()):
            yield Finding("warning", "holds", f"The queue {name!r} is paused {_story(hold)}", f"rl queue resume {name}")
        for name, hold in sorted(holds.actors.items()):
            fix = f"Correct its code and deploy it, or: rl queue resume --actor {name}"
            yield Finding("warning", "holds", f"The actor {name!r} is parked {_story(hold)}", fix)

    return check


def _story(hold: Hold) -> str:
    since = datetime.fromtimestamp(hold.since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"since {since} by {hold.by}{f' ({hold.reason})' if hold.reason else ''}."
