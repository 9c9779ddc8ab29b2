"""Tells how long Relier's scripts kept a Redis server busy, by its own measure (SLOWLOG)."""

from __future__ import annotations

import contextlib
import os
from importlib.resources import files
from typing import Any

import redis

from relier.store.scripts import script

#: The longest (ms) that one script may keep the server busy.
BOUND = 5.0
#: Calls that took less (µs) are not kept.
KEPT_FROM = 500


class SlowScripts:
    """The slowest calls of a server from now on.

    The server measures wall-clock time: what the machine takes away from it in between is in it. So it gets the
    highest priority that the system grants.

    Parameters:
      client: the server.
      pid: its process, where it is ours.
    """

    def __init__(self, client: redis.Redis, pid: int | None = None) -> None:
        self._client = client
        if pid is not None:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, pid, -20)
            with contextlib.suppress(OSError):
                os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(10))
        client.config_set("slowlog-log-slower-than", KEPT_FROM)
        client.config_set("slowlog-max-len", 100_000)
        client.slowlog_reset()
        self._names = {
            script(file.name.removesuffix(".lua"), package).sha: file.name.removesuffix(".lua")
            for package in ("relier.store", "relier.brokers")
            for file in (files(package) / "lua").iterdir()
            if file.name.endswith(".lua")
        }

    def slowest(self) -> dict[str, float]:
        """Return the longest time in ms of each script that took longer than half a millisecond, slowest first."""
        log: Any = self._client.slowlog_get(100_000)
        found: dict[str, float] = {}
        for entry in log:
            words = entry["command"].split()
            name = self._names.get(words[1].decode()) if len(words) > 1 else None
            if name is not None:
                found[name] = max(found.get(name, 0.0), entry["duration"] / 1000)
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def report(self) -> bool:
        """Print the slowest scripts; returns whether all kept to the bound."""
        slowest = self.slowest()
        shown = ", ".join(f"{name} {ms:.1f} ms" for name, ms in list(slowest.items())[:5])
        print(f"  slowest scripts: {shown or f'none above {KEPT_FROM / 1000} ms'}", flush=True)
        return all(ms <= BOUND for ms in slowest.values())
