"""Idempotency locks, and a look at all keys that are taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from relier.store.connection import ScriptRunner
from relier.store.fleet import pass_gate
from relier.store.keys import SHARDS, Keys, shard_of
from relier.store.scripts import script
from relier.store.verdicts import milliseconds


class Holder(NamedTuple):
    """Who acquires a lock. A later run of the same owner takes over from an earlier one."""

    token: str
    owner: str
    fence: int


class Answer(NamedTuple):
    """What became of an attempt to acquire: `granted`, `completed`, `held` or `stale`."""

    verdict: str
    result: bytes = b""  #: of a completed one
    lapses_in: float = 0.0  #: of a held one: seconds, should its holder be dead


class Locks:
    """Locks of one namespace. Each call may be repeated after a lost reply."""

    def __init__(self, runner: ScriptRunner, keys: Keys) -> None:
        self._runner = runner
        self._keys = keys

    def acquire(self, key: str, holder: Holder, seconds: float) -> Answer:
        """Ask for a lock; it lapses after so many seconds unless it is renewed."""
        verdict, *rest = self._call("acquire", key, holder, seconds)
        if verdict == b"completed":
            return Answer("completed", result=bytes(rest[0]))
        return Answer(verdict.decode(), lapses_in=max(0, int(rest[0])) / 1000 if rest else 0.0)

    def renew(self, key: str, holder: Holder, seconds: float) -> bool:
        """Keep a lock for so many seconds more. False: somebody else has it."""
        return bool(self._call("renew", key, holder, seconds)[0] == b"ok")

    def commit(self, key: str, holder: Holder, ttl: float, result: bytes) -> bool:
        """Remember the result for `ttl` seconds. False: somebody else has the lock, nothing changed."""
        return bool(self._call("commit", key, holder, ttl, result)[0] == b"ok")

    def release(self, key: str, holder: Holder) -> bool:
        """Free the lock. False: somebody else has it, nothing changed."""
        return bool(self._call("release", key, holder, 1.0)[0] == b"ok")

    def _call(self, action: str, key: str, holder: Holder, seconds: float, result: bytes = b"") -> list[bytes]:
        args = ("", action, holder.token, holder.owner, holder.fence, milliseconds(seconds), result)
        reply: list[bytes] = self._runner.run_shared(script("lock"), (self._keys.lock(key),), args)
        return reply

    def purge(self, *, completed: bool = False) -> tuple[int, int]:
        """Free every lock and every key of tasks that somebody holds, `completed` ones as well if asked to.

        Returns how many locks and how many keys.
        """
        pass_gate(self._runner, self._keys)
        locks = sum(self._free_lock(name, completed) for name in self._names("lock"))
        keys = sum(self._free_key(name, completed) for name in self._names("idem"))
        return locks, keys

    def _names(self, kind: str) -> Iterator[str]:
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self._keys.prefix) + f"{{*}}:{kind}:*"
        yield from (name.decode() for page in self._runner.scan(pattern) for name in page)

    def _free_lock(self, name: str, completed: bool) -> bool:
        args, shard = ("", "purge", "", "1" if completed else "", 0, 1, b""), self._shard(name)
        return bool(self._runner.run(script("lock"), (name, self._keys.gate(shard)), args)[0] == b"freed")

    def _free_key(self, name: str, completed: bool) -> bool:
        shard, key = self._shard(name), name.rpartition(":")[2]
        assert 0 <= shard < SHARDS == 64 and shard == shard_of(key), name
        args = ("", key, "1" if completed else "0")
        keys = (*self._keys.shard(shard, ""), self._keys.gate(shard))
        return bool(self._runner.run(script("purge_key"), keys, args) == b"freed")

    def _shard(self, name: str) -> int:
        return int(name[len(self._keys.prefix) + 1 :][:2])
