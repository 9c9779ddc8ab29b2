"""Waits until what the store was told survives a crash of its server (R4)."""

from __future__ import annotations

import logging
import time

import redis

from relier.store.connection import ScriptRunner

logger = logging.getLogger(__name__)

#: Redis flushes its AOF once a second under `appendfsync everysec`; a slow disk may delay that by another one.
FSYNC_INTERVAL = 1.0
#: How long (s) the server's answer about its persistence is believed.
BELIEVED = 60.0


class Durability:
    """How long a write of this store takes to be durable.

    `WAITAOF` is not used: Redis 7.0 lacks it, and under `everysec` it answers too early.
    """

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner
        self._interval = 0.0
        self._asked: float | None = None

    def interval(self) -> float:
        """Return the seconds after which a write is on disk; 0 when it is at once, or when the server keeps no AOF."""
        if self._asked is None or time.monotonic() - self._asked > BELIEVED:
            self._interval = self._ask()
            self._asked = time.monotonic()
        return self._interval

    def wait(self) -> None:
        """Return when everything written before this call is durable."""
        interval = self.interval()
        if interval:
            time.sleep(interval)

    def _ask(self) -> float:
        try:
            flat = self._runner.command("CONFIG", "GET", "append*")
        except redis.ResponseError:  # A managed Redis forbids the question; assume the usual.
            return FSYNC_INTERVAL
        parts = [part.decode() for part in flat]
        config = dict(zip(parts[::2], parts[1::2], strict=True))
        if config.get("appendonly") != "yes" or config.get("appendfsync") == "always":
            return 0.0
        return FSYNC_INTERVAL
