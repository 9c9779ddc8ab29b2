"""What Relier's Redis broker does with messages that plain Dramatiq left behind."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq import Worker
from dramatiq.brokers.redis import RedisBroker

from relier.brokers.redis import RelierRedisBroker
from relier.settings import Settings
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
