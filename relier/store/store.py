"""The facade over tasks, fleet and a look from outside."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator

import redis

from relier.settings import Settings, get_settings
from relier.store.admissions import Admissions
from relier.store.checkpoints import Checkpoints
from relier.store.client import connect, revive_embedded
from relier.store.connection import ScriptRunner
from relier.store.durability import Custody, Durability
from relier.store.fleet import Fleet
from relier.store.keys import CLOCKS, SHARDS, Keys, shard_of
from relier.store.known import Known, known
from relier.store.letters import Letters
from relier.store.locks import Locks
from relier.store.purging import Purges
from relier.store.records import Record, parse_record
from relier.store.scripts import load_all, script
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
        self.runner = ScriptRunner(client)
        self.tasks = Tasks(self.runner, self.keys, retention)
        self.checkpoints = Checkpoints(self.runner, self.keys, self.tasks)
        self.letters = Letters(self.runner, self.keys)
        self.fleet = Fleet(self.runner, self.keys)
        self.admissions = Admissions(self.runner, self.keys)
        self.locks = Locks(self.runner, self.keys)
        self.purges = Purges(self.runner, self.keys, retention)
        self.durability = Durability(self.runner)
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
            ids = (field.decode() for field, _ in self.client.hscan_iter(self.keys.shard(shard, "")[0], count=200))
            batch: list[str] = []
            for task_id in ids:
                batch.append(task_id)
                if len(batch) == 100:
                    yield from self.records(batch, shard).values()
                    batch = []
            yield from self.records(batch, shard).values()

    def dead_letters(self, limit: int) -> list[tuple[str, int, float]]:
        """Return the newest dead letters: task id, shard, time of dead-lettering in seconds."""
        pipe = self.client.pipeline(transaction=False)
        for shard in range(SHARDS):
            pipe.zrevrange(self.keys.shard(shard, "")[5], 0, limit - 1, withscores=True)
        letters = [
            (task_id.decode(), shard, score / 1e6)
            for shard, page in enumerate(pipe.execute())
            for task_id, score in page
        ]
        return sorted(letters, key=lambda letter: -letter[2])[:limit]

    def counters(self) -> dict[str, int]:
        """Return the counters of outcomes, summed over all shards."""
        pipe = self.client.pipeline(transaction=False)
        for shard in range(SHARDS):
            pipe.hgetall(self.keys.shard(shard, "")[2])
        total: dict[str, int] = {}
        for page in pipe.execute():
            for field, value in page.items():
                if field not in CLOCKS:
                    total[field.decode()] = total.get(field.decode(), 0) + int(value)
        return total

    def live(self) -> dict[str, int]:
        """Return how many records there are, how many are due, are remembered, and are dead letters."""
        pipe = self.client.pipeline(transaction=False)
        for shard in range(SHARDS):
            keys = self.keys.shard(shard, "")
            pipe.hlen(keys[0])
            pipe.zcard(keys[1])
            pipe.zcard(keys[5])
            pipe.zcard(keys[6])
        replies = pipe.execute()
        return {
            "records": sum(replies[0::4]),
            "due": sum(replies[1::4]),
            "dead_letters": sum(replies[2::4]),
            "remembered": sum(replies[3::4]),
        }

    def events(self, limit: int = 100) -> list[dict[str, str]]:
        """Return the newest events that are not ordinary, oldest first."""
        pipe = self.client.pipeline(transaction=False)
        for shard in range(SHARDS):
            pipe.xrevrange(self.keys.shard(shard, "")[4], count=limit)
        events = [
            {key.decode(): value.decode("utf-8", "replace") for key, value in fields.items()}
            for page in pipe.execute()
            for _, fields in reversed(page)
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
