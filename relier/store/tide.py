"""Finds out that the store went back: that it lacks what it had confirmed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relier.store.calls import decode
from relier.store.connection import ScriptRunner
from relier.store.keys import SHARDS, Keys
from relier.store.scripts import script


class Rollback(NamedTuple):
    """Writes that one server confirmed and has no more. Times are seconds since the epoch, on the server's clock."""

    shard: int  #: one of those that are on the server
    since: float  #: what was written before is there; 0: nothing is
    until: float  #: what was written after is there
    found_at: float = 0.0  #: when it was noticed; 0: just now


class Tide:
    """What one sweeper heard from each server about the time that its writes have come to.

    Parameters:
      runner: of the store.
      keys: names the keys.
    """

    def __init__(self, runner: ScriptRunner, keys: Keys) -> None:
        self._runner = runner
        self._keys = keys
        self._shards = {keys.marker(shard): shard for shard in range(SHARDS)}
        #: What was confirmed last (µs), by shard.
        self._heard: dict[int, int] = {}

    def rise(self, shards: Sequence[int]) -> list[Rollback]:
        """Have every server that has some of these shards confirm its time; returns who went back since the last."""
        markers = self._runner.one_of_each([self._keys.marker(shard) for shard in shards])
        asked = [self._shards[marker] for marker in markers]
        calls = [(script("tide"), self._keys.shard(s, ""), ("", self._heard.get(s, 0))) for s in asked]
        found = []
        for shard, (tide, known) in zip(asked, self._runner.run_many(calls) if calls else (), strict=True):
            heard, self._heard[shard] = self._heard.get(shard, 0), int(tide)
            if int(known) < heard:
                found.append(Rollback(shard, int(known) / 1e6, heard / 1e6))
        return found


def rollbacks(runner: ScriptRunner, keys: Keys) -> list[Rollback]:
    """Return the last rollback that each shard's records tell of, the newest first."""
    told = runner.commands(("HGET", keys.shard(shard, "")[2], "rolled") for shard in range(SHARDS))
    found = [(shard, [int(part) / 1e6 for part in decode(text).split()]) for shard, text in enumerate(told) if text]
    return sorted((Rollback(shard, *times) for shard, times in found), key=lambda each: -each.found_at)
