"""Reads the statistics of all time again and again, for metrics: only what has changed since is unpacked and added."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relier.store.keys import CLOCKS, SHARDS
from relier.store.packed import Code, unpack_counts
from relier.store.scripts import script
from relier.store.statistics import MINUTE_CODE, SHORT, Row, pairs, rows_of
from relier.store.store import Store


class _Shard:
    """What one shard has of each entry, and by counter."""

    def __init__(self) -> None:
        #: By the hash in which it is (0: until the last roll, 1: since) and the entry.
        self.noted: dict[tuple[int, bytes], tuple[bytes, dict[Code, int]]] = {}
        self.by_name: dict[str, int] = {}
        self.rest: dict[str, int] = {}


class RunningTotals:
    """The totals of `Statistics.totals`, of which it remembers what it has read.

    Parameters:
      store: whose statistics they are.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._shards = [_Shard() for _ in range(SHARDS)]
        self._sums: dict[bytes, dict[Code, int]] = {}

    def rows(self) -> list[Row]:
        """Read every shard in one round trip; each at one moment."""
        calls = [(script("stats_packed"), self._store.keys.shard(number, ""), ("",)) for number in range(SHARDS)]
        for shard, reply in zip(self._shards, self._store.runner.run_many(calls), strict=True):
            self._take_over(shard, reply)
        sums = {
            entry.decode("utf-8", "replace"): {code: n for code, n in counts.items() if n}
            for entry, counts in self._sums.items()
        }
        for shard in self._shards:
            nobody = sums.setdefault("\n", {}) if shard.rest else {}
            for name, n in shard.rest.items():
                nobody[name] = nobody.get(name, 0) + n
        return rows_of({entry: counts for entry, counts in sums.items() if counts})

    def _take_over(self, shard: _Shard, reply: list[Any]) -> None:
        """Bring what is known of a shard up to what it says now."""
        fresh = {(place, entry): raw for place in (0, 1) for entry, raw in pairs(reply[place])}
        for key, raw in fresh.items():
            known = shard.noted.get(key)
            if known is None or known[0] != raw:
                counts = unpack_counts(raw)
                counts.pop(MINUTE_CODE, None)
                self._change(shard, key, known, (raw, counts))
        for key in shard.noted.keys() - fresh.keys():
            self._change(shard, key, shard.noted[key], None)
        counters = {name.decode(): int(n) for name, n in pairs(reply[2]) if name not in CLOCKS}
        ahead = {name: n - shard.by_name.get(name, 0) for name, n in counters.items() if ":" not in name}
        shard.rest = {name: n for name, n in ahead.items() if n}

    def _change(
        self,
        shard: _Shard,
        key: tuple[int, bytes],
        before: tuple[bytes, dict[Code, int]] | None,
        now: tuple[bytes, dict[Code, int]] | None,
    ) -> None:
        old: Mapping[Code, int] = before[1] if before else {}
        new: Mapping[Code, int] = now[1] if now else {}
        sums = self._sums.setdefault(key[1], {})
        for code, n in new.items():
            more = n - old.get(code, 0)
            if more:
                self._add(shard, sums, code, more)
        for code in old.keys() - new.keys():
            self._add(shard, sums, code, -old[code])
        if now is None:
            del shard.noted[key]
        else:
            shard.noted[key] = now

    @staticmethod
    def _add(shard: _Shard, sums: dict[Code, int], code: Code, n: int) -> None:
        sums[code] = sums.get(code, 0) + n
        name = code if isinstance(code, str) else SHORT.get(code)
        if name is not None:
            shard.by_name[name] = shard.by_name.get(name, 0) + n
