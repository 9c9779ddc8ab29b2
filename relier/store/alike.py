"""Failures alike: how many different tasks of an actor failed in one way, and whether one succeeded meanwhile."""

from __future__ import annotations

from relier.store.keys import SHARDS
from relier.store.scripts import script
from relier.store.store import Store


def count_alike(store: Store, fingerprint: str, code: str, task_id: str, since: int = 0) -> int:
    """Count a task that failed; returns how many different ones did after `since` (µs on the server's clock)."""
    return _run(store, "count", f"{fingerprint}:{code}", task_id, since)


def forget_alike(store: Store, fingerprint: str, code: str) -> None:
    """Begin to count anew."""
    _run(store, "forget", f"{fingerprint}:{code}")


def last_success(store: Store, actor: str, code: str) -> int:
    """Return when (µs on the server's clock) a task of the actor completed last under this code; 0: never. One trip."""
    calls = [(script("last_success"), store.keys.shard(shard, ""), ("", actor, code)) for shard in range(SHARDS)]
    return max(map(int, store.runner.run_many(calls)))


def _run(store: Store, *args: str | int) -> int:
    return int(store.runner.run(script("fleet_alike"), store.keys.fleet, ("", *args)))
