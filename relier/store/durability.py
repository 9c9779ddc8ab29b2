"""Waits until what the store was told survives a crash of its server, and its replacement by a replica (R4)."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from relier.store.calls import decode, pairs
from relier.store.connection import UNAVAILABLE, ScriptRunner
from relier.store.replicas import Replicas

logger = logging.getLogger(__name__)

#: Redis flushes its AOF once a second under `appendfsync everysec`; a slow disk may delay that by another one.
FSYNC_INTERVAL = 1.0
#: A record that is older than this (s) is on disk, however slow: its copies need not wait for what was written last.
LONG_SINCE = 10.0
#: How long (s) the server's answer about its persistence is believed.
BELIEVED = 60.0
#: How often (s) a store that is away is asked again.
PATIENCE = 0.25
#: Pledges that end this close (s) to each other end together.
TOGETHER = 0.05


class Durability:
    """How long a write of this store takes to be durable.

    `WAITAOF` is not used: Redis 7.0 lacks it, and under `everysec` it answers too early. Where a server has replicas,
    a write is durable when one of them has it as well.

    Parameters:
      runner: the store's.
      replicas: of the same store.
    """

    def __init__(self, runner: ScriptRunner, replicas: Replicas) -> None:
        self._runner = runner
        self._replicas = replicas
        self._interval = 0.0
        self._asked: float | None = None

    def interval(self) -> float:
        """Return the seconds after which a write is on disk; 0 when it is at once, or when the server keeps no AOF."""
        if self._asked is None or time.monotonic() - self._asked > BELIEVED:
            self._interval = self._ask()
            self._asked = time.monotonic()
        return self._interval

    def wait(self) -> None:
        """Return when everything written before this call is durable. Raises `TimeoutError` when no replica answers."""
        interval = self.interval()
        if interval:
            time.sleep(interval)
        self.replicate()

    def replicate(self) -> None:
        """Return when replicas have everything written before this call; see `Replicas.wait`."""
        self._replicas.wait()

    def _ask(self) -> float:
        try:
            return max(map(_interval, self._runner.everywhere("CONFIG", "GET", "append*")))
        except redis.exceptions.ClusterDownError:
            raise
        except redis.ResponseError:  # A managed Redis forbids the question; assume the usual.
            return FSYNC_INTERVAL


def _interval(config: Any) -> float:
    told = {decode(name): decode(value) for name, value in pairs(config)}
    if told.get("appendonly") != "yes" or told.get("appendfsync") == "always":
        return 0.0
    return FSYNC_INTERVAL


@dataclass(frozen=True, slots=True)
class Pledge:
    """The store has a task since `since` (monotonic), told over connections of `generation`."""

    generation: int
    since: float


class Custody:
    """Tells when what the store took over is durable, to any number of acknowledgements at once.

    Nobody waits in here but one thread, which lives while something is pledged: worker threads go on with other tasks.

    Parameters:
      runner: the store's.
      durability: of the same store.
    """

    def __init__(self, runner: ScriptRunner, durability: Durability) -> None:
        self._runner = runner
        self._durability = durability
        self._pledges: deque[tuple[Pledge, Callable[[bool], None]]] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def pledge(self, generation: int) -> Pledge:
        """Note that everything this thread told the store before is to be durable.

        `generation`: that of the runner before the first of these writes.
        """
        return Pledge(generation, time.monotonic())

    def when_durable(self, pledge: Pledge, then: Callable[[bool], None]) -> None:
        """Call `then` from another thread once the pledge is kept (True), or a connection was lost since (False).

        False means that the server behind the new connection may not have it: the copy is to be given back.
        """
        with self._lock:
            self._pledges.append((pledge, then))
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="relier-custody", daemon=True)
                self._thread.start()

    def _keep(self) -> None:
        while True:
            with self._lock:
                if not self._pledges:
                    self._thread = None
                    return
                oldest, _ = self._pledges[0]
            try:
                self._wait_for(oldest)
            except UNAVAILABLE:
                time.sleep(PATIENCE)

    def _wait_for(self, oldest: Pledge) -> None:
        """Sleep until the oldest pledge is due, and see whether the server is still the one that heard them all."""
        interval = self._durability.interval()
        time.sleep(max(min(TOGETHER, interval), oldest.since + interval - time.monotonic()))
        looked, until = time.monotonic(), float("-inf")
        try:
            self._durability.replicate()
            self._runner.probe()
            until = looked - interval
        finally:  # A connection that was lost in between has been noticed now.
            generation = self._runner.generation
            for pledge, then in self._take(until, generation):
                try:
                    then(pledge.generation == generation)
                except Exception:
                    logger.exception("An acknowledgement failed; its copy comes back.")

    def _take(self, until: float, generation: int) -> list[tuple[Pledge, Callable[[bool], None]]]:
        taken = []
        with self._lock:
            while self._pledges:
                pledge, _ = self._pledges[0]
                if pledge.since > until and pledge.generation == generation:
                    break
                taken.append(self._pledges.popleft())
        return taken
