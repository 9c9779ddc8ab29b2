"""Tells of writes that the store confirmed and lost: after a failover, a restart, or the restoring of a backup."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import redis

from relier.preflight import Check, Finding
from relier.settings import Settings
from relier.store import Store
from relier.store.tide import Rollback, Tide, rollbacks

logger = logging.getLogger(__name__)

#: How often (s) a sweeper has the store's servers confirm their time. What is lost between two looks goes unnoticed.
OFTEN = 0.2
#: How long (s) after it `rl doctor` still warns of a rollback.
RECENT = 86_400.0


class RollbackWatch:
    """A sweeper's look-out for rollbacks, of the servers whose shards it sweeps.

    Parameters:
      store: which store.
    """

    def __init__(self, store: Store) -> None:
        self._tide = Tide(store.runner, store.keys)
        self._looked = float("-inf")

    def look(self, shards: list[int]) -> None:
        """Look, unless that was just done. Raises what the store raises while it is away."""
        now = time.monotonic()
        if not shards or now - self._looked < OFTEN:
            return
        self._looked = now
        for found in self._tide.rise(shards):
            logger.warning(
                "The store went back: it lacks what it had confirmed.",
                extra={"shard": found.shard, "since": moment(found.since), "until": moment(found.until)},
            )


def rollback_check(store: Store) -> Check:
    """Return the check whether the store lost writes lately."""

    def check(_: redis.Redis, __: Settings) -> Iterator[Finding]:
        found = [each for each in rollbacks(store.runner, store.keys) if time.time() - each.found_at < RECENT]
        if not found:
            yield Finding("ok", "rollbacks", "The store has lost nothing that it had confirmed, as far as is known.")
            return
        yield Finding(
            "warning",
            "rollbacks",
            f"The store went back at {moment(found[0].found_at)}: it lacks {described(found[0])}.",
            "Send tasks of that time again where their results are missing; see docs/high-availability.md.",
        )

    return check


def described(rollback: Rollback) -> str:
    """Say what a rollback took."""
    since = f"between {moment(rollback.since)} and" if rollback.since else "before"
    return f"what was written {since} {moment(rollback.until)}"


def moment(seconds: float) -> str:
    """Return a time as people and machines read it; '' for none."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds") if seconds else ""
