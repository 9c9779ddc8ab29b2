"""Shortcuts for examples: calls of the store with the arguments that an example does not care about filled in."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any

import redis

from relier.store import Claim, Due, Failure, Record, Sending, Settled, Store
from relier.store.verdicts import Burial

#: More digits than Lua's tostring would keep.
NOW = 1_763_600_000_123_457
SECOND = 1_000_000
SHARD = 7


class Desk:
    """One store under a clock that stands still until it is moved. Everything happens in one shard."""

    def __init__(self, client: redis.Redis, namespace: str = "relier", retention: float = 3600.0) -> None:
        self.client = client
        self.store = Store(client, namespace, retention)
        self.tasks = self.store.tasks
        self.tasks.clock = NOW
        self._watched = 0.0
        self.tasks.watched.clock = lambda: self._watched
        self._nonces = count()

    def wait(self, seconds: float) -> int:
        """Move the clock; returns the new time in µs."""
        assert self.tasks.clock is not None
        self.tasks.clock += int(seconds * SECOND)
        return self.tasks.clock

    def watch(self, seconds: int) -> None:
        """Let a sweeper watch the shard for so long on its own clock: it looks at it every 10 s, and at the end."""
        self.due()
        for passed in range(0, seconds, 10):
            self._watched += min(10, seconds - passed)
            self.due()

    def sending(self, task: str = "t", **more: Any) -> Sending:
        return Sending(task, SHARD, "default", "act", b"body of " + task.encode(), **more)

    def claim(
        self,
        worker: str = "w1",
        task: str = "t",
        seen: int = 0,
        *,
        nonce: bytes | None = None,
        slot: bool = True,
        settled: Iterable[Settled] = (),
        **more: Any,
    ) -> Claim:
        nonce = nonce if nonce is not None else b"%d" % next(self._nonces)
        sending = self.sending(task, **more)
        return self.tasks.claim(worker, sending, nonce, seen, slot_free=slot, settled=settled)

    def run(self, worker: str = "w1", task: str = "t", **more: Any) -> int:
        """Claim a first-hand copy; returns the fence of the run."""
        claim = self.claim(worker, task, **more)
        assert claim.fence, claim
        return claim.fence

    def commit(
        self, fence: int, worker: str = "w1", task: str = "t", *, hooks: bool = False, result: bytes = b""
    ) -> bool:
        return self.tasks.commit(worker, self.sending(task), fence, hooks=hooks, result=result)

    def fail(
        self,
        fence: int,
        worker: str = "w1",
        task: str = "t",
        *,
        retry: bool = False,
        delay: float = 5.0,
        counts: bool = True,
        hooks: bool = False,
        fingerprint: str = "print",
        limit: int = 0,
    ) -> str:
        failure = Failure(
            retry, delay, counts, hooks, "ValueError", b"encoded", "ValueError: no", fingerprint, identical_limit=limit
        )
        return self.tasks.fail(worker, self.sending(task), fence, failure)

    def settle(self, fence: int, task: str = "t", *, confirmed: bool) -> None:
        self.tasks.settle([Settled(task, SHARD, fence, confirmed)])

    def bury(self, worker: str = "w1", how: str = "crash") -> Burial:
        return self.tasks.bury(worker, [SHARD], how)[SHARD]

    def crash(self, worker: str, task: str = "t") -> None:
        """Let a fresh worker take the task's next copy and die."""
        seen = self.record(task).fence if self.find(task) else 0
        claim = self.claim(worker, task, seen)
        assert claim.fence, claim
        self.bury(worker)

    def due(self, limit: int = 100) -> list[Due]:
        return self.tasks.due([SHARD], limit)[1]

    def published(self, task: str = "t") -> int:
        """Publish the task's due record; returns the fence in the copy's stamp."""
        (due,) = [due for due in self.due() if due.task_id == task]
        self.tasks.mark_published([due], 30.0, 1800.0)
        return due.fence

    def find(self, task: str = "t") -> Record | None:
        return self.store.records([task], SHARD).get(task)

    def record(self, task: str = "t") -> Record:
        record = self.find(task)
        assert record is not None, f"no record of {task}"
        return record

    def state(self, task: str = "t") -> str:
        record = self.find(task)
        return record.state if record else ""

    def key_names(self) -> list[list[str]]:
        """Return the parts of every key's name."""
        return [str(key, "utf-8").split(":") for key in self.client.keys("*") if isinstance(key, bytes)]

    def count(self, name: str) -> int:
        return self.store.counters().get(name, 0)

    def events(self) -> list[str]:
        return [event["event"] for event in self.store.events()]
