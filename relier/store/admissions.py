"""Permits of a limit: what a process asks the store for, what it gets, and what there is to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relier.store.connection import Argument, ScriptCall, ScriptRunner
from relier.store.keys import SHARDS, Keys, shard_of
from relier.store.scripts import Script, script

#: Begins the name of the limit that holds for every task.
GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many tasks in any interval that is as long as the window."""

    scope: str  #: `global`, `actor:<name>` or `key:<actor>:<key>`
    most: int
    window: float  #: seconds

    @property
    def name(self) -> str:
        """Its name in the store. Limits with different windows are counted apart."""
        return f"{self.scope}|{_micros(self.window)}"


@dataclass(frozen=True, slots=True)
class Lease:
    """Permits that one process may use for a while."""

    granted: int
    usable: float  #: seconds, from before the store was asked
    epoch: int
    bucket: int
    opens_in: float  #: seconds until what was needed may be free; 0 when it was
    used: int  #: permits that are counted now, these included
    at: float  #: the server's time, in seconds since the epoch


@dataclass(frozen=True, slots=True)
class Report:
    """What a process tells beside its request; each thing once."""

    forced: int = 0  #: let through without a permit
    epoch: int = 0  #: of the lease whose permits were not used
    bucket: int = 0
    unused: int = 0
    admitted: int = 0
    rejected: int = 0
    failed_open: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """How far a limit is used at the moment."""

    scope: str
    used: int
    most: int
    window: float  #: seconds
    opens_in: float  #: seconds until a permit is free; 0 when one is

    @property
    def sheds(self) -> bool:
        return self.opens_in > 0


Call = tuple[Script, tuple[str, ...], tuple[Argument, ...]]


class Admissions:
    """Limits of one namespace.

    Parameters:
      runner: sends what is asked for people; processes that push have a line of their own.
      keys: names the keys.
    """

    def __init__(self, runner: ScriptRunner, keys: Keys) -> None:
        self._runner = runner
        self._keys = keys
        #: Overrides the server's clock in tests: microseconds since the epoch.
        self.clock: int | None = None

    def _now(self) -> Argument:
        return "" if self.clock is None else self.clock

    def request(self, limit: Limit, wanted: int, needed: int, report: Report) -> Call:
        """Return the call that asks for permits. It must not be sent twice: it gives permits back."""
        args = (
            self._now(),
            limit.name,
            limit.most,
            _micros(limit.window),
            wanted,
            needed,
            report.forced,
            report.epoch,
            report.bucket,
            report.unused,
            report.admitted,
            report.rejected,
            report.failed_open,
        )
        return script("admit"), self._keys.admission(shard_of(limit.name)), args

    def lease(self, limit: Limit, wanted: int, needed: int, report: Report | None = None) -> Lease:
        """Ask for permits over the store's own connection."""
        return parse_lease(self._runner.run(*self.request(limit, wanted, needed, report or Report())))

    def usages(self) -> list[Usage]:
        """Return the limits that are in use, the global one first."""
        pages = self._runner.run_many([self._page(shard, "") for shard in range(SHARDS)])
        found = [_usage(row) for page in pages for row in page]
        for shard, page in enumerate(pages):
            while page := self._runner.run(*self._page(shard, page[-1][0].decode())) if page else ():
                found += map(_usage, page)
        return sorted(found, key=lambda usage: (usage.scope != GLOBAL, usage.scope, usage.window))

    def _page(self, shard: int, after: str) -> ScriptCall:
        return script("admissions"), self._keys.admission(shard), (self._now(), after)

    def forget(self) -> int:
        """Let every limit begin anew; returns how many there were."""
        forget, keys = script("admissions_forget"), self._keys
        names = ((*keys.admission(shard), keys.gate(shard)) for shard in range(SHARDS))
        return sum(self._runner.run(forget, shard, (self._now(),)) for shard in names)


def parse_lease(reply: Any) -> Lease:
    """Return what the store answered to a request. Raises an error that it replied."""
    if isinstance(reply, Exception):
        raise reply
    granted, usable, epoch, bucket, opens_in, used, at = map(int, reply)
    return Lease(granted, usable / 1e6, epoch, bucket, opens_in / 1e6, used, at / 1e6)


def _usage(row: Sequence[Any]) -> Usage:
    scope = row[0].decode().rpartition("|")[0]
    return Usage(scope, int(row[1]), int(row[2]), int(row[3]) / 1e6, int(row[4]) / 1e6)


def _micros(seconds: float) -> int:
    return round(seconds * 1_000_000)
