"""What became of tasks, per queue and actor: of all time, and of the last minutes, hours and days.

The store notes it in the scripts in which it happens (`lua/include/stats.lua`); here it is read, and summed over all
shards. Nothing in here decides or changes anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from relier.store.calls import Calls
from relier.store.connection import ScriptCall
from relier.store.keys import CLOCKS, SHARDS
from relier.store.packed import Code, unpack_counts

#: Upper bounds (s) of the buckets of a histogram: 1 ms, doubled until more than an hour. One more bucket has the rest.
BOUNDS = tuple(2**k / 1000 for k in range(23))

#: Codes of the counters that are noted most often; the others have their names as codes.
SHORT: dict[Code, str] = {1: "accepted", 2: "completed", 3: "failed", 4: "retries"}
#: Where the codes of each histogram begin: as many buckets as bounds and one more, then the sum (µs).
WAITS, RUN_TIMES, RESURRECTIONS = 32, 64, 96
_SIZE = len(BOUNDS) + 2

#: The code of the minute in which an entry was noted; no count.
MINUTE_CODE = 0

#: Where it is counted what has no room of its own: too many queues and actors.
OTHER = "(other)"

#: Length and time for which they are kept (s) of minutes, hours and days.
MINUTE, HOUR, DAY = 60, 3600, 86_400
MINUTES_KEPT, HOURS_KEPT, DAYS_KEPT = 6 * HOUR, 3 * DAY, 31 * DAY
#: How often a shard is read when minutes end meanwhile.
TRIES = 3


@dataclass(frozen=True, slots=True)
class Histogram:
    """How long something took. `counts`: how often, for each bucket of `BOUNDS` and the rest; `sum` in seconds."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    sum: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Row:
    """What is counted of one actor in one queue; both are empty for what belongs to no task."""

    queue: str
    actor: str
    #: By the names of the shards' counters, and `dead:<reason>`, `discarded:<reason>`. What is not there is 0.
    counts: Mapping[str, int]
    waits: Histogram  #: from when a task could run to its claim
    runs: Histogram  #: from a claim to its commit or failure
    resurrections: Histogram  #: from when an owner's death was noted to the next claim

    def __getitem__(self, name: str) -> int:
        return self.counts.get(name, 0)


@dataclass(frozen=True, slots=True)
class ShardTotals:
    """One shard at one moment."""

    shard: int
    rows: list[Row]
    #: The shard's own counters. What they are ahead of the rows was counted by a version without statistics.
    counters: Mapping[str, int]


_Sums = dict[str, dict[Code, int]]


class Statistics(Calls):
    """Reads the statistics of one namespace, as they are packed: unpacking them is not Redis' work.

    Each shard is read at one moment, not all of them at the same one.
    """

    def totals(self) -> list[Row]:
        """Return what was counted of all time, summed over all shards.

        No number goes back, but `admitted`: a process gives back permits that it did not use. What the shards' counters
        are ahead belongs to ('', '').
        """
        sums = _sums()
        for noted, since, meta in self._runner.run_many([self._totals(shard) for shard in range(SHARDS)]):
            counted: dict[Code, int] = defaultdict(int)
            for flat in (noted, since):
                for entry, codes in unpacked(flat):
                    _add(sums[entry], codes)
                    for code, n in codes.items():
                        counted[SHORT.get(code, code)] += n
            for name, n in _counters(meta).items():
                if n != counted[name] and ":" not in name:  # Reasons may have been noted among others.
                    sums["\n"][name] += n - counted[name]
        return rows_of(sums)

    def shard_totals(self, shards: Iterable[int] = range(SHARDS)) -> list[ShardTotals]:
        """Return the totals of each shard, with its counters of the same moment."""
        calls = {shard: self._totals(shard) for shard in shards}
        found = []
        for shard, (noted, since, meta) in zip(calls, self._runner.run_many(list(calls.values())), strict=True):
            sums = _sums()
            for flat in (noted, since):
                for entry, codes in unpacked(flat):
                    _add(sums[entry], codes)
            found.append(ShardTotals(shard, rows_of(sums), _counters(meta)))
        return found

    def windows(self, *seconds: float) -> list[list[Row]]:
        """Return what was counted in the last so many seconds, for each of several windows.

        A window begins at a whole minute when it is no longer than six hours, at a whole hour up to three days, at a
        whole day (UTC) beyond: that which is next to its beginning. It ends now. By the server's clock.
        """
        now = self._time()
        spans = [_span(now, length) for length in seconds]
        belongs: dict[str, tuple[int, ...]] = defaultdict(tuple)
        for i, span in enumerate(spans):
            for period in span.periods:
                belongs[period] += (i,)
        sums: dict[tuple[int, ...], _Sums] = defaultdict(_sums)
        for shard in range(SHARDS):
            self._add_shard(shard, spans, belongs, sums)
        found = [_sums() for _ in spans]
        for windows, entries in sums.items():
            for i in windows:
                for entry, codes in entries.items():
                    _add(found[i][entry], codes)
        return [rows_of(each) for each in found]

    def _add_shard(
        self,
        shard: int,
        spans: Sequence[Span],
        belongs: Mapping[str, tuple[int, ...]],
        sums: Mapping[tuple[int, ...], _Sums],
    ) -> None:
        """Add what one shard has, to the sums of what belongs to the same windows."""
        running, periods = self._periods(shard, list(belongs))
        for period, flat in zip(belongs, periods, strict=True):
            for entry, codes in unpacked(flat):
                _add(sums[belongs[period]][entry], codes)
        for entry, codes in unpacked(running, minute=True):
            minute = codes.pop(MINUTE_CODE, 0)
            _add(sums[tuple(i for i, span in enumerate(spans) if minute >= span.first)][entry], codes)

    def _periods(self, shard: int, periods: Sequence[str]) -> tuple[Any, list[Any]]:
        """Read the running minutes and some periods; again when a minute ended meanwhile, which would be missing."""
        names = ["", *periods, ""]
        for _ in range(TRIES):
            replies = self._runner.commands(("HGETALL", self._keys.statistics(shard, name)) for name in names)
            if _minutes(replies[0]) == _minutes(replies[-1]):
                break
        return replies[-1], replies[1:-1]

    def forget_periods(self) -> None:
        """Forget every minute, hour and day; what was counted of all time stays."""
        now = int(self._time())
        kept = (("m", MINUTE, MINUTES_KEPT), ("h", HOUR, HOURS_KEPT), ("d", DAY, DAYS_KEPT))
        names = [
            f"{p}:{(now - back) // unit}" for p, unit, time in kept for back in range(-unit, time + 2 * unit, unit)
        ]
        of_shards = ([self._keys.statistics(shard, name) for name in names] for shard in range(SHARDS))
        self._runner.commands(("UNLINK", *keys) for keys in of_shards)

    def _totals(self, shard: int) -> ScriptCall:
        return self._call("stats_packed", shard, "")

    def _time(self) -> float:
        if self.clock is not None:
            return self.clock / 1e6
        seconds, micros = self._runner.command("TIME")
        return int(seconds) + int(micros) / 1e6


class Span(NamedTuple):
    """What a window consists of: whole periods, and of the minutes that are running all from the first one on."""

    periods: list[str]
    first: int


def _span(now: float, length: float) -> Span:
    edge = MINUTE if length <= MINUTES_KEPT else HOUR if length <= HOURS_KEPT else DAY
    begin = round((now - length) / edge) * edge
    periods, at = [], (int(now) // MINUTE + 1) * MINUTE
    while at > begin:
        for name, unit in (("d", DAY), ("h", HOUR), ("m", MINUTE)):
            start = (at - 1) // unit * unit
            if start >= begin and (at == start + unit or at > now):
                periods.append(f"{name}:{start // unit}")
                at = start
                break
    return Span(periods, begin // MINUTE)


def unpacked(flat: Any, *, minute: bool = False) -> Iterator[tuple[str, dict[Code, int]]]:
    """Unpack a hash of entries. `minute`: with the minute in which each was noted, where it has one."""
    for entry, raw in pairs(flat):
        codes = unpack_counts(raw)
        if not minute:
            codes.pop(MINUTE_CODE, None)
        yield entry.decode("utf-8", "replace"), codes


def _minutes(flat: Any) -> dict[str, int]:
    return {entry: codes.get(MINUTE_CODE, 0) for entry, codes in unpacked(flat, minute=True)}


def _sums() -> _Sums:
    return defaultdict(lambda: defaultdict(int))


def _add(sums: dict[Code, int], codes: Mapping[Code, int]) -> None:
    for code, n in codes.items():
        sums[code] += n


def _counters(flat: Any) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in pairs(flat) if name not in CLOCKS}


def pairs(flat: Any) -> Iterator[tuple[bytes, bytes]]:
    """Return the fields of a hash and their values, as they are replied."""
    return iter(flat.items()) if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)


def _named(codes: Mapping[Code, int]) -> dict[str, int]:
    names = ((SHORT.get(code, code), n) for code, n in codes.items())
    return {name: n for name, n in names if isinstance(name, str)}


def _histogram(codes: Mapping[Code, int], first: int) -> Histogram:
    *counts, total = (codes.get(code, 0) for code in range(first, first + _SIZE))
    return Histogram(tuple(counts), total / 1e6)


def rows_of(sums: Mapping[str, Mapping[Code, int]]) -> list[Row]:
    """Return the rows of what was summed by entry and code, in their order."""
    rows = []
    for entry, codes in sorted(sums.items()):
        queue, _, actor = entry.partition("\n")
        histograms = (_histogram(codes, first) for first in (WAITS, RUN_TIMES, RESURRECTIONS))
        rows.append(Row(queue, actor, _named(codes), *histograms))
    return rows
