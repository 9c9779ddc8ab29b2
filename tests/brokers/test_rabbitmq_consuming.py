"""Consuming from RabbitMQ: every copy is settled where it came from, once, and by whom it belongs to."""

from __future__ import annotations

import time
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq import Message

from relier.brokers.rabbitmq import RelierRabbitmqBroker
from relier.brokers.rabbitmq_consumer import RabbitmqConsumer
from relier.envelope import Stamp, stamped
from relier.store import durability, shard_of
from tests.brokers.bench import PATIENCE, Bench
from tests.brokers.conftest import Benches


def publish_raw(bench: Bench, queue: str, body: bytes) -> None:
    bench.broker.ensure_queue("default")
    bench.broker._wired().publisher.publish([(queue, body)])


def fetched(bench: Bench, consumer: RabbitmqConsumer) -> Any:
    return bench.wait(lambda: next(consumer), "a delivery")


def test_what_has_run_is_acknowledged_and_remembered(bench: Bench) -> None:
    messages = [bench.quick.send(i) for i in range(20)]
    bench.work()
    bench.settle()

    assert bench.values() == list(range(20))
    for message in messages:  # The acknowledgement is not confirmed, so a copy might come back.
        record = bench.wait(lambda m=message: bench.record(m), "the record")
        assert record.status == "completed"


def test_an_acknowledgement_after_a_reconnect_removes_nothing_else(bench: Bench) -> None:
    for i in range(4):
        bench.gated.send(i)
    bench.work(threads=2)
    bench.wait(lambda: len(bench.began) == 2, "two runs")

    bench.cut()
    bench.wait(lambda: bench.queue().consumers == 1 and bench.queue().unacked == 4, "a new session with all copies")
    bench.gate.set()
    bench.settle()

    assert bench.values("gated") == list(range(4))
    assert sorted(bench.began) == list(range(4))
    assert bench.counters()["completed"] == 4


def test_copies_of_a_lost_session_are_void(bench: Bench) -> None:
    bench.quick.send(1)
    consumer = bench.broker.consume("default", prefetch=5, timeout=100)
    delivery = fetched(bench, consumer)
    assert delivery.may_start()

    bench.cut()
    bench.wait(lambda: not delivery.may_start(), "the loss to be noticed")
    again = fetched(bench, consumer)
    consumer.ack(delivery)  # must not touch the other session

    assert again.message_id == delivery.message_id
    assert bench.queue().unacked == 1
    consumer.ack(again)
    bench.settle()


def test_twenty_cuts_under_load_lose_and_double_nothing(bench: Bench) -> None:
    worker = bench.work(threads=4)
    sent = 0
    for i in range(20):
        bench.broker.enqueue_many([bench.quick.message(sent + j) for j in range(25)])
        sent += 25
        bench.wait(lambda least=25 * i: len(bench.done) >= least, "progress")
        bench.cut(abruptly=i % 2 == 0)

    bench.wait(lambda: len(bench.done) >= sent, "every run")
    bench.settle()
    assert worker.consumers.keys() == {"default", "default.DQ"}
    assert bench.values() == list(range(sent))
    assert bench.counters()["completed"] == sent


def test_a_restarted_server_loses_and_doubles_nothing(fragile_rabbitmq: Any, benches: Benches) -> None:
    server = fragile_rabbitmq
    bench = benches(server, server.new_vhost())
    bench.broker.enqueue_many([bench.gated.message(i) for i in range(30)])
    bench.work(threads=4)
    bench.wait(lambda: len(bench.began) == 4, "some runs")

    server.kill()
    bench.gate.set()
    bench.wait(lambda: len(bench.done) == 4, "their end")
    server.restart()

    bench.wait(lambda: bench.counters().get("completed") == 30, "every end")
    bench.settle()
    assert bench.values("gated") == sorted(bench.began) == list(range(30))


def test_a_task_that_outlives_the_consumer_timeout_runs_once(fragile_rabbitmq: Any, benches: Benches) -> None:
    server = fragile_rabbitmq
    for name, value in (("channel_tick_interval", 200), ("consumer_timeout", 2500)):
        server.evaluate(f"begin application:set_env(rabbit, {name}, {value}), true end")
    bench = benches(server, server.new_vhost())
    bench.work(threads=2)
    bench.gated.send("long")
    bench.wait(lambda: bench.began, "its run")
    session = bench.workers[0].consumers["default"].consumer._session  # type: ignore[union-attr]

    bench.wait(lambda: not session.is_open, "RabbitMQ to close the channel")
    bench.quick.send("beside")
    bench.wait(lambda: bench.values() == ["beside"], "the other thread to go on")
    bench.gate.set()

    bench.settle()
    server.evaluate("begin application:set_env(rabbit, consumer_timeout, 1800000), true end")
    assert bench.began == ["long"]
    assert bench.counters()["completed"] == 2


def test_undecodable_bytes_become_a_dead_letter_and_strand_nothing(bench: Bench) -> None:
    bench.quick.send(1)
    publish_raw(bench, "default", b"\xff no message")
    publish_raw(bench, "default", b'{"queue_name": "default"}')
    bench.quick.send(2)
    bench.work()
    bench.settle()

    assert bench.values() == [1, 2]
    letters = bench.store.dead_letters(10)
    records = [bench.store.records([task], shard)[task] for task, shard, _ in letters]
    assert {record.reason for record in records} == {"PayloadIntegrityError"}
    assert {record.body for record in records} == {b"\xff no message", b'{"queue_name": "default"}'}
    assert bench.queue("default.XQ").ready == 0


def test_redelivered_undecodable_bytes_are_one_dead_letter(bench: Bench) -> None:
    publish_raw(bench, "default", b"garbage")
    publish_raw(bench, "default", b"garbage")
    bench.work()
    bench.settle()

    assert len(bench.store.dead_letters(10)) == 1


def test_a_delay_is_in_the_store(bench: Bench) -> None:
    bench.work()
    message = bench.quick.send_with_options(args=("late",), delay=300)

    assert bench.held() == 0
    record = bench.record(message)
    assert record is not None
    bench.wait(lambda: bench.values() == ["late"], "the delayed run")
    bench.settle()


def test_the_delay_of_a_foreign_message_moves_to_the_store(bench: Bench) -> None:
    """Plain Dramatiq puts an `eta` on the message and holds it in a worker's memory."""
    soon = int(time.time() * 1000) + 1500
    messages = [bench.quick.message(i).copy(queue_name="default.DQ", options={"eta": soon}) for i in range(50)]
    bench.broker.ensure_queue("default")
    bench.broker._wired().publisher.publish([(m.queue_name, m.encode()) for m in messages])
    bench.work(threads=1)

    bench.wait(lambda: sum(bench.record(m) is not None for m in messages) == 50, "custody of the store")
    bench.wait(lambda: len(bench.done) == 50, "the runs")
    bench.settle()
    assert bench.values() == list(range(50))
    assert time.time() * 1000 >= soon


def test_a_foreign_delay_is_kept_while_the_store_is_away(bench: Bench, monkeypatch: Any) -> None:
    schedule, refused = bench.store.tasks.schedule, list[float]()

    def away(sending: Any, delay: float) -> bool:
        if len(refused) < 3:
            refused.append(delay)
            raise redis.ConnectionError("away")
        return schedule(sending, delay)

    monkeypatch.setattr(bench.store.tasks, "schedule", away)
    later = int(time.time() * 1000) + 3_600_000
    message = bench.quick.message(1).copy(queue_name="default.DQ", options={"eta": later})
    publish_raw(bench, "default.DQ", message.encode())
    bench.work()

    bench.wait(lambda: bench.record(message) is not None, "custody of the store")
    bench.settle()
    assert len(refused) == 3
    assert bench.done == []


def test_published_copies_come_by_the_delay_lane(bench: Bench) -> None:
    bench.broker.publish_many([bench.quick.message(1)])
    assert bench.queue("default.DQ").ready == bench.broker.lane_depth("default") == 1
    assert bench.queue("default").ready == 0

    bench.work()
    bench.settle()
    assert bench.values() == [1]


def test_a_failed_tasks_copy_waits_for_durability_without_a_thread(bench: Bench, monkeypatch: Any) -> None:
    custody = bench.store.custody
    when_durable = custody.when_durable
    waiting: list[tuple[Any, Any]] = []
    monkeypatch.setattr(custody, "when_durable", lambda *pledge: waiting.append(pledge))
    bench.failing.send(1)
    bench.work(threads=1)
    bench.wait(lambda: waiting, "the failure")

    bench.quick.send(2)
    bench.wait(lambda: bench.values() == [2], "the only thread to go on")
    bench.wait(lambda: bench.queue().unacked == 1, "only the failed one to be unacknowledged")

    when_durable(*waiting[0])
    bench.settle()


def test_failures_that_wait_for_durability_hold_up_no_others(bench: Bench, monkeypatch: Any) -> None:
    custody = bench.store.custody
    when_durable = custody.when_durable
    waiting: list[tuple[Any, Any]] = []
    monkeypatch.setattr(custody, "when_durable", lambda *pledge: waiting.append(pledge))
    bench.broker.enqueue_many([bench.failing.message(i) for i in range(40)])
    bench.quick.send("behind them")
    bench.work(threads=2)  # which prefetches four

    bench.wait(lambda: bench.values() == ["behind them"], "the task behind them")
    bench.wait(lambda: len(waiting) == 40 and bench.queue().unacked == 40, "every failure to wait")
    for pledge in waiting:
        when_durable(*pledge)
    bench.settle()
    sessions = bench.broker._wired().sessions
    bench.wait(lambda: len(sessions.everyone()) == 2, "one session for the queue, and one for its lane")


def test_a_copy_goes_back_when_the_store_may_have_forgotten_its_task(bench: Bench, monkeypatch: Any) -> None:
    monkeypatch.setattr(durability, "FSYNC_INTERVAL", 1.5)
    bench.failing.send(1)
    bench.work(threads=1)
    bench.wait(lambda: bench.counters().get("failed") == 1, "the failure")

    bench.store.runner.generation += 1  # as a lost connection does

    bench.wait(lambda: bench.began == [1] and bench.held() == 0, "the copy to come again, be refused and acknowledged")
    assert bench.counters()["failed"] == 1


def test_pausing_keeps_the_connection_and_the_acknowledgements(bench: Bench) -> None:
    worker = bench.work(threads=2)
    for i in range(2):
        bench.gated.send(i)
    bench.wait(lambda: len(bench.began) == 2, "two runs")
    connection = bench.broker._wired().sessions._link.connection

    for consumer in worker.consumers.values():
        consumer.pause()
    bench.wait(lambda: bench.queue().consumers == 0, "the consumers to be gone")
    bench.gated.send(2)
    assert bench.queue().ready == 1
    bench.gate.set()
    bench.wait(lambda: bench.queue().unacked == 0, "the acknowledgements of what ran")

    for consumer in worker.consumers.values():
        consumer.resume()
    bench.settle()
    assert bench.values("gated") == sorted(bench.began) == [0, 1, 2]
    assert bench.broker._wired().sessions._link.connection is connection


def test_a_worker_that_steps_back_leaves_what_it_did_not_start_to_others(
    bench: Bench, benches: Benches, rabbitmq: Any, vhost: str
) -> None:
    for i in range(4):
        bench.gated.send(i)
    bench.work(threads=1)
    bench.wait(lambda: bench.began and bench.queue().unacked == 2, "a run, and a prefetched copy")
    first = bench.began[0]

    bench.broker.withdraw()

    bench.wait(lambda: bench.queue().ready == 3, "the others to be back")
    assert bench.queue().unacked == 1
    bench.broker.resume()
    bench.gate.set()
    bench.settle()
    assert bench.values("gated") == sorted(bench.began) == list(range(4))
    assert bench.began[0] == first


def test_a_worker_declared_dead_drops_its_copies_and_goes_on(bench: Bench) -> None:
    for i in range(4):
        bench.gated.send(i)
    bench.work(threads=2)
    bench.wait(lambda: len(bench.began) == 2, "two runs")
    process = bench.broker.__dict__["relier_installation"].process
    old = process.identity

    assert bench.store.fleet.declare_dead(old)
    bench.wait(lambda: process.identity != old, "a new identity")
    bench.gate.set()

    bench.wait(lambda: bench.counters().get("completed") == 4, "every end")
    bench.settle()
    assert bench.counters()["accepted"] == 4


def test_a_stopped_worker_holds_nothing(bench: Bench) -> None:
    for i in range(5):
        bench.gated.send(i)
    bench.failing.send(5)
    bench.work(threads=1)
    bench.wait(lambda: bench.began, "a run")
    bench.gate.set()
    bench.stop()

    left = bench.queue()
    assert (left.unacked, left.consumers) == (0, 0)
    bench.work()
    bench.settle()
    assert bench.values("gated") == list(range(5))


def test_quorum_queues_do_as_well(benches: Benches, rabbitmq: Any, vhost: str) -> None:
    bench = benches(rabbitmq, vhost, rabbitmq_queue_type="quorum")
    bench.broker.enqueue_many([bench.quick.message(i) for i in range(20)])
    bench.broker.publish_many([bench.quick.message("lane")])
    assert {name: queue.kind for name, queue in bench.queues().items() if not name.endswith("XQ")} == {
        "default": "quorum",
        "default.DQ": "quorum",
    }

    bench.work()
    bench.wait(lambda: len(bench.done) == 21, "every run")
    bench.cut()
    bench.quick.send("after")
    bench.wait(lambda: len(bench.done) == 22, "another run")
    bench.settle()


def test_results_are_in_the_stores_redis(bench: Bench) -> None:
    def add(x: int) -> int:
        return x + 1

    actor: Any = dramatiq.actor(broker=bench.broker, store_results=True)(add)
    message: Message[Any] = actor.send(41)
    bench.work()

    assert message.get_result(backend=bench.broker.get_results_backend(), block=True, timeout=30_000) == 42


def test_namespaces_do_not_share_queues(benches: Benches, rabbitmq: Any, vhost: str) -> None:
    bench, staging = benches(rabbitmq, vhost), benches(rabbitmq, vhost, namespace="staging")
    bench.quick.send("mine")
    staging.quick.send("theirs")

    assert {name for name in bench.queues() if not name.endswith("Q")} == {"default", "staging.default"}
    staging.work()
    staging.wait(lambda: staging.values() == ["theirs"], "its run")
    assert bench.queue().ready == 1


def test_the_settings_build_this_broker(benches: Benches, rabbitmq: Any, vhost: str) -> None:
    from relier.brokers import default_broker

    broker = default_broker(benches(rabbitmq, vhost).settings)
    assert isinstance(broker, RelierRabbitmqBroker)
    assert not broker.shares_redis


def test_the_stores_copies_go_to_newer_code_first_and_one_that_is_too_old_takes_few(
    bench: Bench, benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relier.brokers.rabbitmq_consumer.MODESTY", 10 * PATIENCE)
    newer = benches(bench.server, bench.vhost)
    newer.quick.options["schema_version"] = 2
    monkeypatch.setattr(bench.store.custody, "when_durable", lambda pledge, then: None)  # A disk that takes its time.
    old, new = (each.broker.consume("default.DQ", prefetch=4, timeout=50) for each in (bench, newer))
    assert next(old) is next(new) is None
    bench.wait(lambda: bench.queue("default.DQ").consumers == 2, "both to consume")

    def publish(count: int) -> None:
        messages: list[Message[Any]] = [Message("default", "quick", (), {}, {}) for _ in range(count)]
        stamps = [Stamp(m.message_id, shard_of(m.message_id), payload_version=2) for m in messages]
        bench.broker.publish_many([stamped(m, stamp) for m, stamp in zip(messages, stamps, strict=True)])

    publish(4)
    assert all(fetched(newer, new) for _ in range(4))
    publish(10)
    bench.wait(lambda: next(old) or bench.counters().get("declined") == 4, "what the newer one has no room for")
    for _ in range(10):
        assert next(old) is None
    assert bench.counters()["declined"] == 4
    assert (bench.queue("default.DQ").ready, bench.queue("default.DQ").unacked) == (6, 8)
    for consumer in (old, new):
        consumer.close()


def test_a_consumer_of_a_closed_queue_gives_back_what_nobody_has_begun_and_nothing_else(bench: Bench) -> None:
    """What may have been claimed is settled as ever: else its copy might outlive the memory of its end."""
    sent = [bench.quick.send(i).message_id for i in range(4)]
    consumer = bench.broker.consume("default", prefetch=4, timeout=100)
    begun, fetched_only = fetched(bench, consumer), fetched(bench, consumer)
    assert begun.may_start()

    bench.broker.closed = frozenset({"default"})
    assert next(consumer) is None

    bench.wait(lambda: (bench.queue().ready, bench.queue().unacked) == (3, 1), "what nobody has begun")
    assert not fetched_only.may_start()
    assert begun.may_start()
    consumer.ack(begun)
    bench.wait(lambda: (bench.queue().ready, bench.queue().unacked) == (3, 0), "its acknowledgement")
    bench.broker.closed = frozenset()
    again = [fetched(bench, consumer) for _ in range(3)]
    assert [delivery.message_id for delivery in again] == [message for message in sent if message != begun.message_id]
    for delivery in again:
        consumer.ack(delivery)
    consumer.close()
    bench.wait(lambda: bench.queue().ready + bench.queue().unacked == 0, "an empty queue")
