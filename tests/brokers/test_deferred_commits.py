"""A task without hooks is committed together with its thread's next claim."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq import Message, Worker
from dramatiq.middleware import Middleware, Shutdown

from relier.brokers.redis import RelierRedisBroker
from relier.brokers.redis_consumer import RedisConsumer
from relier.deferred import DeferredCommits
from relier.process import WorkerProcess
from relier.settings import Settings
from relier.store import shard_of
from relier.store.scripts import script
from tests.waiting import wait_until


class Shop:
    """A broker, an actor, a worker with one thread, and what passed over its line to the store."""

    def __init__(self, redis_url: str) -> None:
        self.broker = RelierRedisBroker(settings=Settings(redis_url=redis_url))
        self.store = self.broker.store
        self.worker = Worker(self.broker, worker_threads=1, worker_timeout=100)
        #: What the actor did, and what it is to do besides.
        self.ran: list[int] = []
        self.meanwhile: Callable[[int], object] = lambda _: None
        #: Names of the scripts of each round trip.
        self.trips: list[tuple[str, ...]] = []
        #: Raised once in place of the replies to a commit and a claim that were carried out.
        self.lost: list[Exception] = []
        self._names = {script(name).sha.encode(): name for name in ("claim", "commit")}
        runner: Any = self.store.runner
        self._exchange, runner._exchange_shared = runner._exchange_shared, self._watch

        @dramatiq.actor(broker=self.broker)
        def work(number: int) -> None:
            self.ran.append(number)
            self.meanwhile(number)

        self.actor: Any = work

    @property
    def process(self) -> WorkerProcess:
        process: WorkerProcess = self.broker.__dict__["relier_installation"].process
        return process

    def _watch(self, connection: Any, commands: Sequence[bytes]) -> list[Any]:
        replies: list[Any] = self._exchange(connection, commands)
        trip = tuple(filter(None, map(self.name, commands)))
        self.trips.append(trip)
        if self.lost and trip == ("commit", "claim"):
            raise self.lost.pop()
        return replies

    def name(self, command: bytes) -> str:
        return next((name for sha, name in self._names.items() if sha in command), "")

    def push(self, count: int) -> list[Message[Any]]:
        return self.broker.enqueue_many([self.actor.message(i) for i in range(count)])

    def completed(self) -> int:
        return self.store.counters().get("completed", 0)

    def settle(self, count: int) -> None:
        """Wait until tasks have completed and their messages are removed."""
        wait_until(lambda: self.completed() == count, 60, "the commits")
        wait_until(lambda: self.broker.do_qsize("default") == 0, 60, "the acknowledgements")

    def close(self) -> None:
        self.worker.stop()
        self.broker.close()
        self.store.close()


@pytest.fixture
def shop(redis_url: str) -> Iterator[Shop]:
    shop = Shop(redis_url)
    yield shop
    shop.close()


def test_a_commit_goes_out_with_the_next_claim_before_user_code_runs(shop: Shop) -> None:
    shop.push(20)
    shop.worker.queue_prefetch = 40  # So that it never finds its queue empty meanwhile.
    seen: list[tuple[int, bool]] = []
    shop.meanwhile = lambda _: seen.append((shop.completed(), shop.process.deferred.waits()))

    shop.worker.start()
    shop.settle(20)

    assert seen == [(number, False) for number in range(20)]
    assert [trip for trip in shop.trips if trip] == [("claim",), *[("commit", "claim")] * 19, ("commit",)]


def test_a_thread_with_nothing_to_do_commits(shop: Shop) -> None:
    shop.worker.start()
    for number in range(1, 4):
        shop.push(1)
        shop.settle(number)

    assert ("commit",) in shop.trips


def test_join_waits_for_commits(shop: Shop) -> None:
    shop.push(3)
    shop.worker.start()
    wait_until(lambda: shop.ran, 60, "a run")

    shop.worker.join()

    assert shop.completed() == len(shop.ran)


class Look(Middleware):
    """Somebody's hook that acts on the end of a task."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.seen: list[int] = []

    def after_process_message(
        self, broker: Any, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        self.seen.append(self.shop.completed())


def test_somebody_elses_hooks_come_after_the_commit(shop: Shop) -> None:
    look = Look(shop)
    shop.broker.add_middleware(look)
    shop.push(5)

    shop.worker.start()
    shop.settle(5)

    assert look.seen == [1, 2, 3, 4, 5]
    assert ("commit", "claim") not in shop.trips


def test_a_commit_whose_reply_is_lost_is_sent_again(shop: Shop) -> None:
    shop.push(10)
    shop.lost = [redis.ConnectionError("lost"), redis.TimeoutError("lost")]

    shop.worker.start()
    shop.settle(10)

    assert not shop.lost
    assert sorted(shop.ran) == list(range(10))
    assert shop.store.counters().get("refused", 0) == 0


def test_a_run_that_is_handed_over_before_its_commit_runs_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    put, taken = DeferredCommits.put, list[Any]()

    def taken_away(self: DeferredCommits, run: Any, commit: Any) -> None:
        put(self, run, commit)
        if not taken:
            taken.append(run)
            self._process.hand_over(run, "shutdown")

    monkeypatch.setattr(DeferredCommits, "put", taken_away)
    shop.push(3)

    shop.worker.start()
    shop.settle(3)

    assert sorted(shop.ran) == sorted([0, 1, 2, taken[0].args[0]])
    assert shop.store.counters()["handed_over"] == 1


def test_a_commit_that_fails_gives_its_task_back(shop: Shop) -> None:
    shop.push(3)
    shop.meanwhile = lambda number: shop.lost.append(redis.ResponseError("boom")) if len(shop.ran) == 1 else None
    runner: Any = shop.store.runner
    watch: Callable[[Any, Sequence[bytes]], list[Any]] = runner._exchange_shared

    def refuse(connection: Any, commands: Sequence[bytes]) -> list[Any]:
        if shop.lost and shop.name(commands[0]) == "commit":  # Not what another thread sends.
            return [shop.lost.pop(), *watch(connection, commands[1:])]
        return watch(connection, commands)

    runner._exchange_shared = refuse

    shop.worker.start()
    shop.settle(3)

    assert len(shop.ran) == 4
    assert shop.store.counters()["handed_over"] == 1


def test_a_run_that_the_store_lost_for_good_runs_again(shop: Shop) -> None:
    tasks = {int(message.args[0]): message.message_id for message in shop.push(3)}

    def forget(number: int) -> None:
        if len(shop.ran) == 1:
            records, _, meta, *_ = shop.store.keys.shard(shard_of(tasks[number]), "")
            shop.store.client.hdel(records, tasks[number])
            shop.store.client.hset(meta, "floor", 1 << 52)

    shop.meanwhile = forget

    shop.worker.start()
    shop.settle(3)

    assert sorted(shop.ran) == sorted([0, 1, 2, shop.ran[0]])


def test_the_beat_commits_for_a_thread_that_does_not_come_to_it(shop: Shop) -> None:
    """Dramatiq's `Worker.pause` lets threads sleep between two tasks."""
    threads: list[Any] = []

    def pause(_: int) -> None:
        threads.append(threading.current_thread())
        threads[-1].pause()

    shop.meanwhile = pause
    shop.push(2)

    shop.worker.start()
    wait_until(lambda: shop.completed() == 1, 60, "the commit")

    assert len(shop.ran) == 1
    shop.meanwhile = lambda _: None
    threads[0].resume()
    shop.settle(2)


def test_an_interrupt_right_after_the_reply_to_a_commit_leaves_no_copy_unacknowledged(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupts = [Shutdown("now")]

    def hit(name: str) -> None:
        if name == "committed" and interrupts and shop.completed() < 3:
            raise interrupts.pop()

    monkeypatch.setattr("relier.deferred.failpoints.hit", hit)
    shop.push(3)

    shop.worker.start()
    shop.settle(3)

    assert not interrupts
    assert len(shop.process.runs) == 0


def test_a_thread_whose_commit_the_beat_sent_leaves_its_quarters(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a task on its last chance waits for a neighbour that does nothing."""
    acknowledge = RedisConsumer.ack

    def late(self: RedisConsumer, message: Any) -> None:
        acknowledge(self, message)
        if message.actor_name == "work":
            wait_until(shop.completed, 60, "the commit by the beat")

    monkeypatch.setattr(RedisConsumer, "ack", late)
    shop.push(1)

    shop.worker.start()
    shop.settle(1)

    wait_until(lambda: not shop.process.quarters._inside, 10, "a thread that left")
