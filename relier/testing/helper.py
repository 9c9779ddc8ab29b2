"""The block in which a test runs tasks."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections import defaultdict
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from dramatiq import Broker
from dramatiq.asyncio import get_event_loop_thread, set_event_loop_thread
from dramatiq.worker import WorkerThread

from relier.admission import admission_of
from relier.brokers.lanes import Lanes
from relier.brokers.memory import MemoryBroker
from relier.errors import StoreUnavailableError
from relier.event_loops import start_loop
from relier.installation import installation_of
from relier.knowledge import FleetView, actors_of
from relier.lifecycle import current_run, is_async
from relier.process import WorkerProcess
from relier.publisher import Publisher
from relier.routes import HOLDS
from relier.settings import Settings
from relier.store import SHARDS, Store
from relier.store.connection import UNAVAILABLE
from relier.testing.errors import NeverEndingError, TestingError, WorkerCrash
from relier.testing.hands import Hands, NoQueue
from relier.testing.rehearsal import Rehearsal
from relier.testing.tasks import Task, queued_task, task_of

#: How long (µs) a run takes on the test's clock, whatever it takes: what follows it is later by a tick of any clock.
RUN = 1000
#: Most runs at one moment of the test's clock.
MOST_RUNS = 10_000
#: Seconds: what is due later than this waits until somebody lets it go.
FAR = 10 * 365 * 86_400.0

_SHARDS = range(SHARDS)


class Testing:
    """Runs the tasks of one test, in the thread that asks for it.

    Parameters:
      broker: whose actors take part. Default: the global broker's, and those that are declared meanwhile.
      fail_fast: whether `run` and the others raise the exception of a task that failed for good, as
        `StubBroker.join` does. Each of them can be told otherwise. Default: True.
      **settings: settings of this test, by field name, as `unknown_actor_grace=60`. The others are the broker's.
        What an actor took from those when it was declared, it keeps.

    The store is in the Redis of the settings, else in the embedded server, in a namespace that ends with the block.
    Raises `TestingError` inside of another block, `StoreUnavailableError` when the store cannot be reached.
    """

    __test__ = False

    def __init__(self, broker: Broker | None = None, *, fail_fast: bool = True, **settings: Any) -> None:
        if unknown := set(settings) - set(Settings.model_fields):
            raise TypeError(f"Testing() got settings that do not exist: {', '.join(sorted(unknown))}.")
        self.fail_fast = fail_fast
        self._rehearsal = Rehearsal(broker)
        own = f"{self._rehearsal.settings.namespace[:32]}.testing-{os.getpid()}-{secrets.token_hex(4)}"
        self.settings = self._rehearsal.settings.model_copy(update={**settings, "namespace": own})
        #: What the last runs that failed for good raised, and nobody has been told of yet.
        self._failures: list[BaseException] = []
        self._told: tuple[Any, ...] = ()
        self._has_loop = False
        self._now = 0

    # -- the block ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        Rehearsal.check()
        self.store = Store.from_settings(self.settings)
        try:
            seconds, micros = self.store.client.time()
        except UNAVAILABLE as error:
            self.store.close()
            raise StoreUnavailableError(f"Relier cannot reach Redis for this test: {error}") from error
        self._set_clock(int(seconds) * 1_000_000 + int(micros))
        self.broker = MemoryBroker(self.settings, self.store, self._rehearsal.middleware(), lambda: self.now)
        self._process = WorkerProcess(self.broker, self.store, self.settings)
        installation_of(self.broker).process = self._process
        self._publisher = Publisher(self.store, Lanes(self.broker), self.settings)
        self._fleet = FleetView(self.store)
        self._hands = Hands(self.broker, self._failures)
        hands: dict[str, Any] = defaultdict(lambda: self._hands)
        self._thread = WorkerThread(broker=self.broker, consumers=hands, work_queue=NoQueue(), worker_timeout=1000)  # type: ignore[arg-type]
        self._rehearsal.begin(self.broker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        self._rehearsal.end()
        if self._has_loop and (loop := get_event_loop_thread()) is not None:
            set_event_loop_thread(None)
            loop.stop()  # type: ignore[no-untyped-call]
        if (admission := admission_of(self.broker)) is not None:
            admission.close()
        with suppress(*UNAVAILABLE):
            self._forget()
        self.store.close()

    def _keys(self) -> list[bytes]:
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self.store.keys.prefix) + "*"
        return list(self.store.client.scan_iter(match=pattern, count=1000))

    def _forget(self) -> None:
        if keys := self._keys():
            self.store.client.unlink(*keys)

    # -- time ---------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """The test's time in seconds since the epoch. Only `advance`, `finish` and each run (1 ms) move it."""
        return self._now / 1e6

    @property
    def next_due(self) -> float | None:
        """Seconds until the next retry or delayed task is due; None when nothing waits."""
        due = self._next_due()
        return None if due is None else (due - self._now) / 1e6

    def advance(self, seconds: float, *, fail_fast: bool | None = None) -> int:
        """Let time pass, and run each task when it is due; returns how many runs there were."""
        end = self._now + int(seconds * 1e6)
        ran = self.run(fail_fast=fail_fast)
        while (due := self._next_due()) is not None and due <= end:
            self._move_to(due)
            ran += self.run(fail_fast=fail_fast)
        self._move_to(end)
        return ran + self.run(fail_fast=fail_fast)

    def finish(self, *, within: float = 30 * 86_400.0, fail_fast: bool | None = None) -> int:
        """Run everything to its end, and let as much time pass as that takes; returns how many runs there were.

        Raises `NeverEndingError` when something waits longer than `within` seconds. What is held until somebody lets it
        go, as in a paused queue, is left.
        """
        end = self._now + int(within * 1e6)
        ran = self.run(fail_fast=fail_fast)
        while (due := self._next_due()) is not None:
            if due > end:
                raise NeverEndingError(f"After {within:g} s there is still something to do: {self.tasks}")
            self._move_to(due)
            ran += self.run(fail_fast=fail_fast)
        return ran

    def _next_due(self) -> int | None:
        pipe = self.store.client.pipeline(transaction=False)
        until, page = self._now + int(FAR * 1e6), -1 if self._process.gate.holds else 1
        for shard in _SHARDS:
            pipe.zrangebyscore(self.store.keys.shard(shard, "")[1], f"({self._now}", until, 0, page, withscores=True)
        pages = [self._not_held(shard, found) for shard, found in enumerate(pipe.execute()) if found]
        return min((int(due) for found in pages for _, due in found), default=None)

    def _not_held(self, shard: int, waiting: list[tuple[bytes, float]]) -> list[tuple[bytes, float]]:
        """Return those that time lets go on: what is held is looked at again and again, and stays."""
        if not self._process.gate.holds:
            return waiting
        records = self.store.records([task_id.decode() for task_id, _ in waiting], shard)
        held = {
            record.task_id.encode() for record in records.values() if record.state == "s" and record.reason in HOLDS
        }
        return [(task_id, due) for task_id, due in waiting if task_id not in held]

    def _move_to(self, now: int) -> None:
        if now <= self._now:
            return
        passed = (now - self._now) // 1000
        self._set_clock(now)
        pipe, keys = self.store.client.pipeline(transaction=False), self._keys()
        for key in keys:
            pipe.pttl(key)
        for key, left in zip(keys, pipe.execute(), strict=True):
            if left > 0:
                pipe.pexpire(key, max(0, left - passed))
        pipe.execute()
        if (admission := admission_of(self.broker)) is not None:
            admission.forget()

    def _set_clock(self, now: int) -> None:
        self._now = self.store.tasks.clock = self.store.admissions.clock = now
        ahead = now / 1e6 - time.time()
        self.store.tasks.watched.clock = lambda: time.monotonic() + ahead

    # -- running ------------------------------------------------------------------------------------------------

    def run(self, *, fail_fast: bool | None = None) -> int:
        """Run what is due now, and what that enqueues, until nothing is; returns how many runs there were.

        What the store refuses, as a duplicate or a task that is held, is no run.
        `fail_fast`: see the class. What is left when it raises is run by the next call. Raises `NeverEndingError` after
        ten thousand runs.
        """
        if current_run() is not None:
            raise TestingError("A task cannot run tasks: push them, and let the test run them.")
        raises, ran, taken = self.fail_fast if fail_fast is None else fail_fast, 0, 0
        self._process.gate.look()
        try:
            while (delivery := self.broker.take() or self._published()) is not None:
                if taken == MOST_RUNS:
                    raise NeverEndingError(f"{MOST_RUNS} runs, and no end: do these tasks enqueue each other?")
                taken += 1
                ran += self._run(delivery)
                if self._failures and raises:
                    raise self._failures.pop()
        finally:
            self._failures.clear()
            self._settle()
        return ran

    def _run(self, delivery: Any) -> bool:
        """Have a copy processed; returns whether its task ran."""
        if is_async(self.broker.get_actor(delivery.actor_name)) and not self._has_loop:
            start_loop()
            self._has_loop = True
        self._set_clock(self._now + RUN)
        before = self._hands.runs
        self._thread.process_message(delivery)
        self._process.deferred.flush()
        return self._hands.runs > before

    def _published(self) -> Any:
        """Publish what is due, and return the first copy of that."""
        holds = self._process.gate.holds
        told = self.broker.get_declared_queues(), actors_of(self.broker), self._process.identity, holds.version
        if told != self._told:
            self._told = told
            for queue in sorted(self.broker.get_declared_queues()):
                self._process.also_consumes(queue)
            self._process.tell()
            self._fleet.look()
        while self._publisher.publish(_SHARDS, self._fleet):
            pass
        return self.broker.take()

    def _settle(self) -> None:
        if settled := self._process.runs.unsettled():
            self.store.tasks.settle(settled)
            self._process.runs.sent(settled)

    def crash(self) -> None:
        """Kill the worker that runs the calling task, as SIGKILL would; to be called by code of the task.

        The run ends here and is lost; what else the worker had goes on under a new identity. `run` then runs the task
        again, unless it has crashed too often.
        """
        if current_run() is None:
            raise TestingError("Nothing runs that could crash: call crash() from code of a task.")
        worker = self._process.identity
        self.store.fleet.declare_dead(worker)
        for shard in _SHARDS:
            while self.store.tasks.bury(worker, [shard], "died")[shard].left:
                pass
        self.store.fleet.fulfilled(worker)
        self._process.refence(worker)
        raise WorkerCrash

    def release(self, task: Task | str) -> None:
        """Release a dead letter, as `rl dlq release` does: it is due at once. Raises `TestingError` when it is none."""
        task_id = task if isinstance(task, str) else task.id
        record = self.store.record(task_id)
        if record is None or record.state != "d":
            raise TestingError(f"{task_id} is no dead letter.")
        shard = next(shard for letter, shard, _ in self.store.dead_letters(1_000_000) if letter == task_id)
        self.store.tasks.hold(task_id, "release", "a test", shard)

    # -- what is to be seen -------------------------------------------------------------------------------------

    @property
    def tasks(self) -> list[Task]:
        """Every task that has not ended, those that wait in the broker first."""
        records = [record for record in self.store.scan() if record.state in "sr"]
        known = {record.task_id for record in records}
        queued = [task for raw in self.broker.waiting() if (task := queued_task(raw)) and task.id not in known]
        return queued + sorted((task_of(record, self.now) for record in records), key=lambda task: task.due_in)

    @property
    def dead_letters(self) -> list[Task]:
        """Every dead letter, the newest first."""
        found = self.store.dead_letters(1000)
        records = (self.store.records([task_id], shard).get(task_id) for task_id, shard, _ in found)
        return [task_of(record, self.now) for record in records if record]

    @property
    def counters(self) -> dict[str, int]:
        """What the store has counted, as `rl audit` shows it: `completed`, `retried`, `dead`, …"""
        return self.store.counters()
