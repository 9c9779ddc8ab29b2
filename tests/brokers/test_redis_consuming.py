"""What Relier's Redis broker does with messages that plain Dramatiq left behind."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq import Message, Worker
from dramatiq.brokers.redis import RedisBroker

from relier.brokers.redis import RelierRedisBroker
from relier.envelope import Stamp, stamped
from relier.settings import Settings
from relier.store import shard_of
from tests.waiting import wait_until


def test_the_delay_of_a_foreign_message_moves_to_the_store(redis_url: str) -> None:
    done: list[int] = []

    def quick(value: int) -> None:
        done.append(value)

    foreign: Any = RedisBroker(url=redis_url)  # type: ignore[no-untyped-call]
    theirs: Any = dramatiq.actor(broker=foreign)(quick)
    soon = [theirs.send_with_options(args=(i,), delay=1500) for i in range(10)]
    late = theirs.send_with_options(args=(99,), delay=3_600_000)
    broker = RelierRedisBroker(settings=Settings(redis_url=redis_url))
    dramatiq.actor(broker=broker)(quick)
    worker = Worker(broker, worker_threads=2, worker_timeout=100)
    worker.start()
    try:
        wait_until(lambda: broker.store.record(late.message_id), 60, "custody of the store")
        wait_until(lambda: len(done) == len(soon), 60, "the runs")
        wait_until(lambda: broker.do_qsize("default") == 0, 60, "an empty broker")
        assert sorted(done) == list(range(10))
        assert broker.store.status(late.message_id) == "scheduled"
    finally:
        worker.stop()
        broker.close()
        broker.store.close()
        foreign.close()


def test_a_worker_that_is_too_old_for_the_stores_copies_takes_one_at_a_time(redis_url: str) -> None:
    """So those that can run them come first; what is not too new for it makes it take as many as ever."""
    broker = RelierRedisBroker(settings=Settings(redis_url=redis_url))
    dramatiq.actor(broker=broker, actor_name="act")(print)
    consumer = broker.consume("default.DQ", prefetch=8)

    def publish(count: int, version: int) -> None:
        messages: list[Message[Any]] = [Message("default", "act", (), {}, {}) for _ in range(count)]
        stamps = [Stamp(m.message_id, shard_of(m.message_id), payload_version=version) for m in messages]
        broker.publish_many([stamped(m, stamp) for m, stamp in zip(messages, stamps, strict=True)])

    def take(left: int) -> Any:
        """Ask for a message, until `left` copies are in the lane."""
        while broker.lane_depth("default") > left:
            found = next(consumer)
        return found

    try:
        publish(3, version=2)
        assert take(left=0) is None
        publish(6, version=2)
        for left in (5, 4, 3):
            assert take(left) is None
            assert broker.lane_depth("default") == left
        take(left=0)
        publish(4, version=1)
        assert take(left=3) is not None
        assert broker.lane_depth("default") == 3
        assert take(left=0) is not None
        assert broker.store.counters()["declined"] == 9
    finally:
        consumer.close()
        broker.close()
        broker.store.close()


def test_many_messages_go_back_to_the_head_of_their_queue_in_order(redis_url: str) -> None:
    broker = RelierRedisBroker(settings=Settings(redis_url=redis_url))
    dramatiq.actor(broker=broker, actor_name="act")(print)
    broker.enqueue_many([Message("default", "act", (i,), {}, {}) for i in range(260)])
    consumer = broker.consume("default", prefetch=250)
    taken = [next(consumer) for _ in range(230)]  # The rest of what was fetched has not left the consumer.
    assert [message.args[0] for message in taken if message] == list(range(230))

    broker.closed, broker.unstarted = frozenset({"default"}), lambda lane: taken if lane == "default" else []
    assert next(consumer) is None
    assert broker.depth("default") == 260

    broker.closed = frozenset()
    order = [message.args[0] for message in (next(consumer) for _ in range(250)) if message]
    assert order == list(range(250))
    broker.close()
    broker.store.close()
