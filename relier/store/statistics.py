"""What became of tasks, per queue and actor: of all time, and of the last minutes, hours and days.

The store notes it in the scripts in which it happens (`lua/include/stats.lua`); here it is read, and summed over all
shards. Nothing in here decides or changes anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relier.store.calls import Calls
from relier.store.connection import ScriptCall
from relier.store.keys import CLOCKS, SHARDS
from relier.store.scripts import script

#: Upper bounds (s) of the buckets of a histogram: 1 ms, doubled until more than an hour. One more bucket has the rest.
BOUNDS = tuple(2**k / 1000 for k in range(23))

#: Codes of the counters that are noted most often; the others have their names as codes.
SHORT = {"1": "accepted", "2": "completed", "3": "failed", "4": "retries"}
#: Where the codes of each histogram begin: as many buckets as bounds and one more, then the sum (µs).
WAITS, RUN_TIMES, RESURRECTIONS = 32, 64, 96
_SIZE = len(BOUNDS) + 2

#: Where it is counted what has no room of its own: too many queues and actors.
OTHER = "(other)"

#: Length and time for which they are kept (s) of minutes, hours and days.
MINUTE, HOUR, DAY = 60, 3600, 86_400
MINUTES_KEPT, HOURS_KEPT, DAYS_KEPT = 6 * HOUR, 3 * DAY, 31 * DAY
#: Most periods that one script reads.
AT_ONCE = 10


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


_Sums = dict[str, dict[str, int]]


class Statistics(Calls):
    """Reads the statistics of one namespace. Each shard is read at one moment, not all of them at the same one."""

    def totals(self) -> list[Row]:
        """Return what was counted of all time, summed over all shards. No number ever goes back.

        What the shards' counters are ahead belongs to ('', '').
        """
        sums = _sums()
        for reply in self._runner.run_many([self._totals(shard) for shard in range(SHARDS)]):
            _add(sums, reply[0])
            _add_rest(sums, reply)
        return rows_of(sums)

    def shard_totals(self, shards: Iterable[int] = range(SHARDS)) -> list[ShardTotals]:
        """Return the totals of each shard, with its counters of the same moment."""
        calls = {shard: self._totals(shard) for shard in shards}
        found = []
        for shard, (flat, meta) in zip(calls, self._runner.run_many(list(calls.values())), strict=True):
            sums = _sums()
            _add(sums, flat)
            found.append(ShardTotals(shard, rows_of(sums), _counters(meta)))
        return found

    def windows(self, *seconds: float) -> list[list[Row]]:
        """Return what was counted in the last so many seconds, for each of several windows.

        A window begins at a whole minute when it is no longer than six hours, at a whole hour up to three days, at a
        whole day (UTC) beyond: that which is next to its beginning. It ends now. By the server's clock.
        """
        now = self._time()
        found = []
        for length in seconds:
            periods, first = _periods(now, length)
            sums = _sums()
            for flat in self._runner.run_many(list(self._of(periods, first))):
                _add(sums, flat)
            found.append(rows_of(sums))
        return found

    def _totals(self, shard: int) -> ScriptCall:
        return self._call("stats_totals", shard, "", "1")

    def _of(self, periods: Sequence[str], first: int) -> Iterator[ScriptCall]:
        """Ask for periods, in pieces, and once for the minutes that are running."""
        for shard in range(SHARDS):
            for i in range(0, len(periods), AT_ONCE):
                running = (first, 2**53) if i == 0 else (1, 0)
                yield (
                    script("stats_periods"),
                    self._keys.shard(shard, ""),
                    (self.now(), *running, *periods[i : i + AT_ONCE]),
                )

    def _time(self) -> float:
        if self.clock is not None:
            return self.clock / 1e6
        seconds, micros = self._runner.command("TIME")
        return int(seconds) + int(micros) / 1e6


def _periods(now: float, length: float) -> tuple[list[str], int]:
    """Return the periods of a window, the latest first, and its first minute."""
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
    return periods, begin // MINUTE


def _sums() -> _Sums:
    return defaultdict(lambda: defaultdict(int))


def _add(sums: _Sums, flat: Sequence[Any]) -> None:
    for entry, text in zip(flat[::2], flat[1::2], strict=True):
        sum_, parts = sums[entry.decode("utf-8", "replace")], text.decode().split("\t")
        for code, n in zip(parts[::2], map(int, parts[1::2]), strict=True):
            sum_[code] += n


def _add_rest(sums: _Sums, reply: Sequence[Any]) -> None:
    """Add what the counters are ahead of the rows to nobody's."""
    counters = _counters(reply[1])
    if not counters:
        return
    noted: _Sums = _sums()
    _add(noted, reply[0])
    sums_: dict[str, int] = defaultdict(int)
    for codes in noted.values():
        for code, n in codes.items():
            sums_[SHORT.get(code, code)] += n
    for name, n in counters.items():
        if n != sums_[name]:
            sums["\n"][name] += n - sums_[name]


def _counters(flat: Any) -> dict[str, int]:
    pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
    return {name.decode(): int(value) for name, value in pairs if name not in CLOCKS}


def _named(codes: Mapping[str, int]) -> dict[str, int]:
    return {SHORT.get(code, code): n for code, n in codes.items() if code in SHORT or not code.isdigit()}


def _histogram(codes: Mapping[str, int], first: int) -> Histogram:
    *counts, total = (codes.get(str(code), 0) for code in range(first, first + _SIZE))
    return Histogram(tuple(counts), total / 1e6)


def rows_of(sums: Mapping[str, Mapping[str, int]]) -> list[Row]:
    """Return the rows of what was summed by entry and code, in their order."""
    rows = []
    for entry, codes in sorted(sums.items()):
        queue, _, actor = entry.partition("\n")
        histograms = (_histogram(codes, first) for first in (WAITS, RUN_TIMES, RESURRECTIONS))
        rows.append(Row(queue, actor, _named(codes), *histograms))
    return rows
