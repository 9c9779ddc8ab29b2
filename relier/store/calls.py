"""How operations on tasks are called: by what keys, at what time, in what form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from relier.store.connection import Argument, ScriptCall, ScriptRunner
from relier.store.keys import Keys
from relier.store.scripts import script
from relier.store.verdicts import Sending
from relier.store.watched import Watched

#: Most ids that one script takes; longer lists are sent in pieces.
BATCH = 100


def micros(seconds: float) -> int:
    return int(seconds * 1_000_000)


def flag(value: bool) -> str:
    return "1" if value else "0"


def decode(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def pairs(reply: Any) -> list[tuple[Any, Any]]:
    """Return what a reply pairs up: a hash, or members with scores; RESP2 and RESP3 tell them differently."""
    if isinstance(reply, dict):
        return list(reply.items())
    if reply and isinstance(reply[0], list):
        return [(first, second) for first, second in reply]
    return list(zip(reply[::2], reply[1::2], strict=True))


def described(sending: Sending) -> tuple[Argument, ...]:
    """Return what a record says of its task, in the order in which the scripts that make one take it."""
    return sending.max_resurrections, sending.queue, sending.actor, sending.payload_version, sending.body


class Calls:
    """What all operations of one namespace share. Each may be repeated after a lost reply.

    Parameters:
      runner: sends the scripts.
      keys: names the keys.
      retention: seconds for which the id of an ended task is kept when late copies of it may exist.
    """

    def __init__(self, runner: ScriptRunner, keys: Keys, retention: float = 3600.0) -> None:
        self._runner = runner
        self._keys = keys
        self._keep = micros(retention)
        #: Overrides the server's clock in tests: microseconds since the epoch.
        self.clock: int | None = None
        self.watched = Watched()
        #: How many snapshots this process has begun to take of its runs (R8).
        self.snapshots = 0

    def now(self) -> Argument:
        """Return what scripts take for the time: '' for the server's clock."""
        return "" if self.clock is None else self.clock

    def _call(self, name: str, shard: int, worker: str, *args: Argument) -> ScriptCall:
        return script(name), self._keys.shard(shard, worker), (self.now(), *args)

    def _by_hand(self, name: str, shard: int, *args: Argument) -> ScriptCall:
        """Return a call that only an operator may make; see `Keys.gate`."""
        operation, keys, terms = self._call(name, shard, "", *args)
        return operation, (*keys, self._keys.gate(shard)), terms

    def _run(self, name: str, shard: int, worker: str, *args: Argument) -> Any:
        return self._runner.run_shared(*self._call(name, shard, worker, *args))

    def _by_shard(self, name: str, items: Iterable[tuple[int, Sequence[Argument]]], *first: Argument) -> list[Any]:
        """Run one script a shard, all in one round trip."""
        by_shard: dict[int, list[Argument]] = {}
        for shard, args in items:
            by_shard.setdefault(shard, []).extend(args)
        calls = [
            (script(name), self._keys.shard(shard, ""), (self.now(), *first, *args)) for shard, args in by_shard.items()
        ]
        return self._runner.run_many(calls) if calls else []
