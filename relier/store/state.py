"""How much there is in the store, and how its server does: for metrics. Nothing in here decides or changes anything."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from relier.store.keys import SHARDS
from relier.store.scripts import script
from relier.store.store import Store

#: The reason of dead letters whose own is not known: an earlier version left them.
UNKNOWN = "(unknown)"


class Kind(NamedTuple):
    """What dead letters have in common."""

    queue: str
    actor: str
    reason: str


@dataclass(slots=True)
class Contents:
    """What all shards have. Not of one moment: each shard is."""

    records: int = 0
    waiting: int = 0  #: unended tasks that no worker owns
    due: int = 0  #: those of them whose time has come
    due_lag: float = 0.0  #: seconds for which the oldest of those has waited since
    dead_letters: int = 0
    letters: Counter[Kind] = field(default_factory=Counter)
    #: The tasks that no living worker can run or may begin, by queue and actor.
    parked: Counter[tuple[str, str]] = field(default_factory=Counter)


def contents(store: Store) -> Contents:
    """Look at every shard, in one round trip and with no more work when they are full."""
    calls = [(script("shard_state"), store.keys.shard(shard, ""), (store.tasks.now(),)) for shard in range(SHARDS)]
    found = Contents()
    for reply in store.runner.run_many(calls):
        _add(found, reply)
    return found


def _add(found: Contents, reply: list[Any]) -> None:
    records, waiting, due, lag, letters, kinds, parked = reply
    found.records += records
    found.waiting += waiting
    found.due += due
    found.due_lag = max(found.due_lag, int(lag) / 1e6)
    found.dead_letters += letters
    unknown = letters
    for name, count in zip(kinds[::2], kinds[1::2], strict=True):
        found.letters[_kind(name)] += int(count)
        unknown -= int(count)
    if unknown > 0:
        found.letters[Kind("", "", UNKNOWN)] += unknown
    for lot, count in zip(parked[::2], parked[1::2], strict=True):
        queue, actor = _text(lot).split("\n")[:2]
        found.parked[queue, actor] += count


def _kind(name: bytes) -> Kind:
    parts = _text(name).split("\n", 2)
    return Kind(*parts) if len(parts) == 3 else Kind("", "", parts[0])


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """What the store's servers say of themselves: one, or each master of a Cluster."""

    ping: float  #: seconds until all of them had answered
    infos: Sequence[Mapping[str, str]]

    def total(self, name: str) -> float | None:
        """Return the sum of a figure of their INFO; None where one does not tell it."""
        found = [_number(info, name) for info in self.infos]
        return None if None in found else sum(number for number in found if number is not None)

    @property
    def fullest(self) -> tuple[float | None, float | None]:
        """Memory used, and maxmemory (0: none), in bytes, of the one that has the least room."""
        fullest = max(self.infos, key=_fullness)
        return _number(fullest, "used_memory"), _number(fullest, "maxmemory")

    @property
    def aof_works(self) -> bool | None:
        """Whether all keep an append-only file and write it without errors; None where one does not tell."""
        if self.total("aof_enabled") is None:
            return None
        return all(
            _number(info, "aof_enabled") and info.get("aof_last_write_status", "ok") == "ok" for info in self.infos
        )


def _number(info: Mapping[str, str], name: str) -> float | None:
    try:
        return float(info[name])
    except (KeyError, ValueError):
        return None


def _fullness(info: Mapping[str, str]) -> tuple[float, float]:
    used, most = _number(info, "used_memory") or 0.0, _number(info, "maxmemory") or 0.0
    return used / most if most else 0.0, used


def server_health(store: Store) -> ServerHealth:
    """Ask the store's servers how they do."""
    begun = time.perf_counter()
    store.runner.everywhere("PING")
    ping = time.perf_counter() - begun
    return ServerHealth(ping, [_parsed(raw) for raw in store.runner.everywhere("INFO")])


def _parsed(raw: bytes) -> dict[str, str]:
    lines = _text(raw).splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and not line.startswith("#"))
