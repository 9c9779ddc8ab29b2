"""Waits until a replica has what the store was told: a promoted one then has it, too."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

import redis

from relier.store.connection import ScriptRunner
from relier.store.keys import SHARDS, Keys

logger = logging.getLogger(__name__)

#: How many replicas must have a write: the Sentinels, and the masters of a Cluster, promote the one that has most.
ENOUGH = 1
#: How long (s) it is believed which servers have replicas.
BELIEVED = 5.0
#: Longest wait (s) for the replicas' answer in one call.
PATIENCE = 1.0


class Replicas:
    """The replicas of the store's servers.

    Parameters:
      runner: of the store.
      keys: names the keys.
    """

    def __init__(self, runner: ScriptRunner, keys: Keys) -> None:
        self._runner = runner
        self._markers = [keys.marker(shard) for shard in range(SHARDS)]
        self._waited_for: list[str] = []
        self._asked = float("-inf")
        self._generation = -1
        self._refused = False

    def wait(self) -> None:
        """Return when a replica of each server that has one has all that was written before this call.

        Returns at once where there are none, or where Redis does not let its user ask. Raises `TimeoutError` when
        replicas are connected and none of them confirms; it may be called again.
        """
        if self._refused:
            return
        try:
            for marker in self._behind_which():
                if self._runner.confirmed(marker, ENOUGH, PATIENCE) < ENOUGH:
                    self._asked = float("-inf")
                    raise redis.TimeoutError("No replica has confirmed in time.")
        except redis.exceptions.NoPermissionError as error:
            self._refused = True
            logger.warning("Replicas cannot be waited for; the disk of the master decides.", extra={"why": str(error)})

    def _behind_which(self) -> Iterable[str]:
        """Return a marker's key on each server that has replicas."""
        generation, now = self._runner.generation, time.monotonic()
        if now - self._asked > BELIEVED or generation != self._generation:
            places = self._runner.one_of_each(self._markers)
            abouts = self._runner.about(places, "replication")
            self._waited_for = [key for key, about in zip(places, abouts, strict=True) if _has_replicas(about)]
            self._asked, self._generation = now, generation
        return self._waited_for


def _has_replicas(about: bytes) -> bool:
    return any(line.startswith(b"connected_slaves:") and line != b"connected_slaves:0" for line in about.split())
