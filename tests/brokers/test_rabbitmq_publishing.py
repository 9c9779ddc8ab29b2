"""Publishing to RabbitMQ: what `send` returned for is in a queue."""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from dramatiq.errors import ConnectionClosed

from relier.brokers import rabbitmq_connection, rabbitmq_publisher
from tests.brokers.bench import PATIENCE, Bench
from tests.brokers.conftest import Benches


def test_a_message_is_in_its_queue_when_send_returns(bench: Bench) -> None:
    for i in range(5):
        bench.quick.send(i)
        assert bench.queue().ready == i + 1


def test_many_threads_share_one_connection(bench: Bench) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(bench.quick.send, range(400)))

    assert bench.queue().ready == 400
    bench.work()
    bench.settle()
    assert bench.values() == list(range(400))


def test_a_batch_is_confirmed_as_a_whole(bench: Bench) -> None:
    bench.broker.enqueue_many([bench.quick.message(i) for i in range(500)])

    assert bench.queue().ready == 500


def test_what_was_pushed_while_connections_were_cut_is_there(bench: Bench) -> None:
    sent: list[int] = []
    over = threading.Event()

    def push() -> None:
        while not over.is_set():
            try:
                bench.quick.send(len(sent))
            except ConnectionClosed:  # Not accepted, or not known to be.
                continue
            sent.append(len(sent))

    pusher = threading.Thread(target=push)
    pusher.start()
    try:
        for i in range(6):
            bench.wait(lambda least=50 * i: len(sent) > least, "pushes")
            bench.cut(abruptly=i % 2 == 0)
    finally:
        over.set()
        pusher.join()

    bench.work()
    bench.wait(lambda: set(sent) <= set(bench.values()), "every push to be run")
    bench.settle()
    assert bench.counters()["accepted"] == len(bench.done)  # Sent twice is run once.


def test_a_queue_that_was_deleted_is_made_again(bench: Bench) -> None:
    bench.quick.send(1)
    for name in ("default", "default.DQ"):
        bench.broker._wired().inquiries.ask(partial(_delete, name))

    bench.quick.send(2)

    assert bench.queue().ready == 1
    assert bench.queue("default.DQ").ready == 0


def _delete(queue: str, channel: Any) -> None:
    channel.queue_delete(queue)


def test_a_server_that_is_away_is_an_error_without_the_password(benches: Benches, rabbitmq: object, vhost: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: nobody else can answer here
        url = f"amqp://user:secret@127.0.0.1:{taken.getsockname()[1]}/"
        bench = benches(rabbitmq, url)
        bench.broker._existing.add("default")
        with pytest.raises(ConnectionClosed) as publishing:
            bench.quick.send(1)
        bench.broker._existing.clear()
        with pytest.raises(ConnectionClosed) as declaring:
            bench.quick.send(1)
    for error in (publishing, declaring):
        assert str(error.value).startswith("RabbitMQ: ")
        assert "secret" not in repr(error.value) + str(error.value)


def test_a_silent_server_lets_nobody_wait_for_ever(
    fragile_rabbitmq: Any, benches: Benches, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = fragile_rabbitmq
    bench = benches(server, server.new_vhost(), heartbeat_ttl=3600)  # No AMQP heartbeat comes to help.
    bench.quick.send(1)
    monkeypatch.setattr(rabbitmq_publisher, "PUBLISH_TIMEOUT", 0.5)
    monkeypatch.setattr(rabbitmq_connection, "ANSWER_TIMEOUT", 0.5)
    assert bench.broker.depth("default") == 1

    server.stop()
    try:
        with pytest.raises(ConnectionClosed, match="no confirmation in time"):
            bench.quick.send(2)
        with pytest.raises(ConnectionClosed, match="does not answer"):
            bench.broker.depth("default")
    finally:
        server.cont()

    monkeypatch.setattr(rabbitmq_publisher, "PUBLISH_TIMEOUT", PATIENCE)
    bench.quick.send(3)


def test_a_blocked_server_is_an_error_at_once_and_passes(fragile_rabbitmq: Any, benches: Benches) -> None:
    server = fragile_rabbitmq
    bench = benches(server, server.new_vhost())
    bench.quick.send(1)

    publisher = bench.broker._wired().publisher
    server.evaluate("begin vm_memory_monitor:set_vm_memory_high_watermark(0.000001), true end")
    try:
        with pytest.raises(ConnectionClosed):
            while True:  # RabbitMQ tells a publisher of the alarm when it publishes.
                bench.quick.send(2)
        bench.wait(lambda: publisher._blocked, "the alarm")
        with pytest.raises(ConnectionClosed, match="publishers are blocked"):
            bench.quick.send(3)
    finally:
        server.evaluate("begin vm_memory_monitor:set_vm_memory_high_watermark(0.9), true end")
    bench.wait(lambda: not publisher._blocked, "the end of the alarm")
    bench.quick.send(4)


def test_a_forked_child_publishes_over_a_connection_of_its_own(bench: Bench) -> None:
    bench.quick.send("parent")

    child = os.fork()
    if child == 0:
        try:
            bench.quick.send("child")
            os._exit(0)
        except BaseException:
            os._exit(1)
    deadline = time.monotonic() + PATIENCE
    ended = 0
    while not ended and time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    assert ended == child
    assert os.waitstatus_to_exitcode(status) == 0

    bench.quick.send("parent again")
    assert bench.queue().ready == 3
