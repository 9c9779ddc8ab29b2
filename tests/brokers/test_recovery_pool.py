"""A worker of the recovery pool sees a task under the queue that it belongs to."""

from __future__ import annotations

import pytest
from dramatiq import Message
from dramatiq.broker import Broker, MessageProxy
from dramatiq.brokers.stub import StubBroker

from relier.brokers.redis import RelierRedisBroker
from relier.brokers.redis_consumer import Origin, RedisDelivery
from relier.envelope import republished
from relier.middleware import RecoveryPool
from relier.settings import Settings
from relier.store import Due, Suspicion


@pytest.mark.parametrize("own", [True, False], ids=["own broker", "another broker"])
def test_the_task_has_its_own_queue_while_it_runs_and_that_of_the_pool_when_it_is_acknowledged(own: bool) -> None:
    due = Due("id", 0, 7, "s", Suspicion.NONE, 1, 1, "default", "act", b"")
    carried = republished(Message("default", "act", (), {}, {}), due, "re-queue")
    carried.options["redis_message_id"] = "1"
    redis = RelierRedisBroker(settings=Settings(redis_url="redis://127.0.0.1:1/0"))
    broker: Broker = redis if own else StubBroker()
    message = RedisDelivery(carried, b"", redis, Origin()) if own else MessageProxy(carried)
    pool = RecoveryPool()

    pool.before_process_message(broker, message)
    assert message.queue_name == message.asdict()["queue_name"] == "default"
    message.options["noted"] = True
    pool.after_process_message(broker, message)
    assert message.queue_name == message.asdict()["queue_name"] == "re-queue"
    assert message.asdict()["options"] is message.options
