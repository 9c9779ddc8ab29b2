"""The facade over tasks, fleet and a look from outside."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator

import redis

from relier.settings import Settings, get_settings
from relier.store.admissions import Admissions
from relier.store.calls import pairs
from relier.store.checkpoints import Checkpoints
from relier.store.client import connect, revive_embedded
from relier.store.cluster import runner_for
from relier.store.durability import Custody, Durability
from relier.store.fleet import Fleet
from relier.store.keys import CLOCKS, SHARDS, Keys, shard_of
from relier.store.known import Known, known
from relier.store.letters import Letters
from relier.store.locks import Locks
from relier.store.purging import Purges
from relier.store.records import Record, parse_record
from relier.store.replicas import Replicas
from relier.store.scripts import load_all, script
from relier.store.statistics import Statistics
from relier.store.tasks import Tasks


class Store:
    """The only place where a task's fate is decided.

    Parameters:
      client: a Redis client without retries of its own (see `relier.store.client.connect`).
      namespace: prefix of every key and channel.
      retention: seconds for which the id of an ended task is kept when late copies of it may exist.
    """

    def __init__(self, client: redis.Redis, namespace: str = "relier", retention: float = 3600.0) -> None:
        load_all("relier.store")
        self.client = client
        self.keys = Keys(namespace)
        self.runner = runner_for(client)
        self.tasks = Tasks(self.runner, self.keys, retention)
        self.checkpoints = Checkpoints(self.runner, self.keys, self.tasks)
        self.letters = Letters(self.runner, self.keys)
        self.fleet = Fleet(self.runner, self.keys)
        self.admissions = Admissions(self.runner, self.keys)
        self.locks = Locks(self.runner, self.keys)
        self.purges = Purges(self.runner, self.keys, retention)
        self.statistics = Statistics(self.runner, self.keys)
        self.durability = Durability(self.runner, Replicas(self.runner, self.keys))
        self.custody = Custody(self.runner, self.durability)

    @classmethod
    def from_settings(cls, settings: Settings) -> Store:
        store = cls(connect(settings), settings.namespace, settings.result_ttl)
        if settings.redis_url is None and not settings.redis_use_sentinel:
            store.runner.on_lost = lambda: revive_embedded(settings.state_dir)
        return store

    def records(self, task_ids: Iterable[str], shard: int | None = None) -> dict[str, Record]:
        """Return the records of those tasks that have one. `shard`: where they are, when not where their ids say."""
        by_shard: dict[int, list[str]] = {}
        for task_id in task_ids:
            by_shard.setdefault(shard_of(task_id) if shard is None else shard, []).append(task_id)
        found: dict[str, Record] = {}
        for where, ids in by_shard.items():
            for i in range(0, len(ids), 100):
                batch = ids[i : i + 100]
                replies = self.runner.run(script("inspect"), self.keys.shard(where, ""), (self.tasks.now(), *batch))
                parsed = (parse_record(t, reply) for t, reply in zip(batch, replies, strict=True))
                found.update((record.task_id, record) for record in parsed if record)
        return found

    def record(self, task_id: str) -> Record | None:
        """Return a task's record; looks in every shard when it is not where its id says."""
        found = self.records([task_id])
        for shard in range(SHARDS) if not found else ():
            found = self.records([task_id], shard)
            if found:
                break
        return found.get(task_id)

    def status(self, task_id: str) -> str | None:
        """Return queued, scheduled, running, completed, dead or discarded; None when nothing is known of it."""
        return self.known(task_id).status or None

    def known(self, task_id: str, shard: int | None = None, *, result: bool = False) -> Known:
        """Look at one task; see `relier.store.known.known`."""
        return known(self.runner, self.keys, task_id, shard, result=result)

    def scan(self) -> Iterator[Record]:
        """Iterate over every record, shard by shard, without blocking the server. Bare remembered ids are left out."""
        for shard in range(SHARDS):
            batch: list[str] = []
            for task_id in self._ids(shard):
                batch.append(task_id)
                if len(batch) == 100:
                    yield from self.records(batch, shard).values()
                    batch = []
            yield from self.records(batch, shard).values()

    def _ids(self, shard: int) -> Iterator[str]:
        cursor: bytes | str = "0"
        while True:
            cursor, page = self.runner.command("HSCAN", self.keys.shard(shard, "")[0], cursor, "COUNT", 200)
            yield from (field.decode() for field, _ in pairs(page))
            if cursor in (b"0", "0"):
                return

    def dead_letters(self, limit: int) -> list[tuple[str, int, float]]:
        """Return the newest dead letters: task id, shard, time of dead-lettering in seconds."""
        pages = self.runner.commands(
            ("ZRANGE", self.keys.shard(shard, "")[5], 0, limit - 1, "REV", "WITHSCORES") for shard in range(SHARDS)
        )
        letters = [
            (task_id.decode(), shard, float(score) / 1e6)
            for shard, page in enumerate(pages)
            for task_id, score in pairs(page)
        ]
        return sorted(letters, key=lambda letter: -letter[2])[:limit]

    def counters(self) -> dict[str, int]:
        """Return the counters of outcomes, summed over all shards."""
        pages = self.runner.commands(("HGETALL", self.keys.shard(shard, "")[2]) for shard in range(SHARDS))
        total: dict[str, int] = {}
        for page in pages:
            for field, value in pairs(page):
                if field not in CLOCKS:
                    total[field.decode()] = total.get(field.decode(), 0) + int(value)
        return total

    def live(self) -> dict[str, int]:
        """Return how many records there are, how many are due, are remembered, and are dead letters."""
        shards = [self.keys.shard(shard, "") for shard in range(SHARDS)]
        sizes = (("HLEN", 0), ("ZCARD", 1), ("ZCARD", 5), ("ZCARD", 6))
        replies = self.runner.commands((command, keys[place]) for keys in shards for command, place in sizes)
        return {
            "records": sum(replies[0::4]),
            "due": sum(replies[1::4]),
            "dead_letters": sum(replies[2::4]),
            "remembered": sum(replies[3::4]),
        }

    def events(self, limit: int = 100) -> list[dict[str, str]]:
        """Return the newest events that are not ordinary, oldest first."""
        streams = (self.keys.shard(shard, "")[4] for shard in range(SHARDS))
        pages = self.runner.commands(("XREVRANGE", stream, "+", "-", "COUNT", limit) for stream in streams)
        events = [
            {k.decode(): v.decode("utf-8", "replace") for k, v in pairs(flat)}
            for page in pages
            for _, flat in reversed(page)
        ]
        return sorted(events, key=lambda event: int(event["at"]))[-limit:]

    def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        self.runner.close()
        self.client.close()


_lock = threading.Lock()
_stores: dict[tuple[int, Settings], Store] = {}


def get_store(settings: Settings | None = None) -> Store:
    """Return this process's store for the settings (default: those of the environment)."""
    settings = settings or get_settings()
    key = (os.getpid(), settings)
    with _lock:
        if key not in _stores:
            _stores[key] = Store.from_settings(settings)
        return _stores[key]
