from __future__ import annotations

from typing import Any

import pika
import pika.exceptions
import pytest
import redis

from tests.conftest import PrivateRabbitmqs, PrivateServers
from tests.servers import RabbitmqServer, RedisServer
from tests.servers.rabbitmq_servers import Queue
from tests.sources import STORES
from tests.waiting import await_until, wait_until


def test_the_store_is_empty_at_the_start_of_a_test(client: redis.Redis) -> None:
    assert client.dbsize() == 0
    client.set("relier:left", "over")


def test_the_store_is_empty_at_the_start_of_the_next_test(client: redis.Redis) -> None:
    assert client.dbsize() == 0


def test_a_server_refuses_eviction_and_keeps_a_log(client: redis.Redis) -> None:
    assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    assert client.config_get("appendonly")["appendonly"] == "yes"


@pytest.mark.parametrize("kind", STORES)
def test_a_private_server_keeps_its_data_over_a_kill(private_server: PrivateServers, kind: str) -> None:
    server = private_server(kind, appendfsync="always")
    with server.client() as client:
        client.set("key", "value")

    server.kill()
    assert not server.answers()

    server.restart()
    with server.client() as client:
        assert client.get("key") == b"value"


@pytest.mark.parametrize("kind", STORES)
def test_a_stopped_server_does_not_answer_until_it_goes_on(private_server: PrivateServers, kind: str) -> None:
    server: RedisServer = private_server(kind)

    server.stop()
    with server.client(socket_timeout=0.1) as client, pytest.raises(redis.TimeoutError):
        client.ping()

    server.cont()
    wait_until(server.answers, what="an answer after SIGCONT")


def connection(url: str) -> Any:
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = 60
    return pika.BlockingConnection(parameters)


def test_a_virtual_host_is_empty_and_shows_its_queues(rabbitmq: RabbitmqServer, vhost: str) -> None:
    assert rabbitmq.queues(vhost) == {}
    with connection(vhost) as session:
        channel = session.channel()
        channel.confirm_delivery()
        channel.queue_declare("first", durable=True)
        channel.queue_declare("second", durable=True, arguments={"x-queue-type": "quorum"})
        for name in ("first", "second"):
            channel.basic_publish("", name, b"text")
            channel.basic_publish("", name, b"text")
            channel.basic_get(name)
        assert rabbitmq.queues(vhost) == {"first": Queue("classic", 1, 1, 0), "second": Queue("quorum", 1, 1, 0)}


@pytest.mark.parametrize("abruptly", [False, True])
def test_closing_the_connections_of_one_host_spares_the_others(
    rabbitmq: RabbitmqServer, vhost: str, abruptly: bool
) -> None:
    other = rabbitmq.new_vhost()
    try:
        with connection(other) as spared:
            cut = connection(vhost)
            assert rabbitmq.close_connections(vhost, abruptly) == 1
            with pytest.raises(pika.exceptions.AMQPConnectionError):
                wait_until(lambda: cut.process_data_events(time_limit=0.1), 60, "the end of the connection")
            spared.process_data_events(time_limit=0)
            assert spared.is_open
    finally:
        rabbitmq.drop_vhost(other)


def test_a_private_rabbitmq_keeps_its_messages_over_a_kill(private_rabbitmq: PrivateRabbitmqs) -> None:
    server = private_rabbitmq()
    with connection(server.url) as session:
        channel = session.channel()
        channel.confirm_delivery()
        channel.queue_declare("queue", durable=True)
        channel.basic_publish("", "queue", b"text", pika.BasicProperties(delivery_mode=2))

    server.kill()
    assert not server.answers()

    server.restart()
    with connection(server.url) as session:
        assert session.channel().basic_get("queue", auto_ack=True)[2] == b"text"


def test_waiting_in_vain_says_what_for() -> None:
    with pytest.raises(AssertionError, match="in vain for: the moon"):
        wait_until(lambda: False, timeout=0.01, what="the moon")


def test_waiting_returns_what_the_condition_gave() -> None:
    import asyncio

    answers = iter([None, 0, "yes"])
    assert asyncio.run(await_until(lambda: next(answers))) == "yes"
