"""Who is in the fleet and what it does, at one look: for metrics. Nothing in here decides or changes anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from relier.store.fleet import Busy
from relier.store.holds import Holds
from relier.store.store import Store

#: Where each thing is among the fleet's keys.
_WORKERS, _OBLIGATIONS, _LEASES, _HOLDS, _BUSY = 0, 3, 4, 8, 10


@dataclass(frozen=True, slots=True)
class Members:
    """The fleet at one moment."""

    now: float  #: the server's time, in seconds since the epoch
    told: Mapping[str, Mapping[str, Any]]  #: what each living worker told about itself
    present: Mapping[str, bool]  #: whether its control channel has a subscriber
    busy: Mapping[str, list[Busy]]  #: what ran in it at its last beat; idle ones are left out
    leases: Mapping[str, str]
    holds: Holds
    owed: Mapping[str, float]  #: when each worker parted whose tasks are not all put back

    @property
    def longest_owed(self) -> float:
        """Seconds for which the tasks of a worker that is gone have been waiting to be put back; 0: none do."""
        return max(0.0, self.now - min(self.owed.values())) if self.owed else 0.0


class Roll:
    """Calls the roll. What a worker told about itself hardly ever changes, so each text is parsed once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parsed: dict[bytes, Mapping[str, Any]] = {}

    def call(self) -> Members:
        """Read the fleet in two round trips."""
        keys = self._store.keys.fleet
        places = (_WORKERS, _OBLIGATIONS, _LEASES, _HOLDS, _BUSY)
        time, *hashes = self._store.runner.commands([("TIME",), *(("HGETALL", keys[place]) for place in places)])
        workers, obligations, leases, holds, busy = map(_pairs, hashes)
        told = self._told(workers)
        return Members(
            int(time[0]) + int(time[1]) / 1e6,
            told,
            self._store.fleet.present(sorted(told)),
            _runs(busy),
            {_text(slot): _text(lease) for slot, lease in leases.items()},
            Holds.of(part for pair in holds.items() for part in pair),
            {_text(worker): float(json.loads(owed)["at"]) / 1e6 for worker, owed in obligations.items()},
        )

    def _told(self, workers: Mapping[bytes, bytes]) -> dict[str, Mapping[str, Any]]:
        known = self._parsed
        self._parsed = {raw: known.get(raw) or json.loads(raw) for raw in workers.values()}
        return {_text(worker): self._parsed[raw] for worker, raw in workers.items()}


def _runs(busy: Mapping[bytes, bytes]) -> dict[str, list[Busy]]:
    told = json.loads(b"[" + b",".join(busy.values()) + b"]")  # At once: workers are many.
    return {_text(worker): list(map(Busy._make, runs)) for worker, runs in zip(busy, told, strict=True)}


def _pairs(flat: Any) -> dict[bytes, bytes]:
    return flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
