"""Draining: what is to go is gone, what is to stay is where it was, and what a worker has fetched stays with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import BrokerConnectionError

from relier.brokers import redis_drain
from relier.brokers.adapters import adapter_of
from relier.brokers.rabbitmq import RelierRabbitmqBroker
from relier.brokers.redis import RelierRedisBroker
from relier.installation import install
from relier.settings import Settings
from tests.servers import RedisServer
from tests.waiting import wait_until

KINDS = ("redis", "plain-redis", "rabbitmq", "quorum", "plain-rabbitmq")
FAR = 4_102_444_800_000  # the year 2100, in ms


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest, store_server: RedisServer, redis_url: str) -> Iterator[Any]:
    kind = request.param
    vhost = request.getfixturevalue("vhost") if "redis" not in kind else ""
    settings = Settings(redis_url=redis_url, broker_url=vhost or None)
    if kind == "quorum":
        settings = settings.model_copy(update={"rabbitmq_queue_type": "quorum"})
    made: dict[str, Callable[[], Any]] = {
        "redis": lambda: RelierRedisBroker(settings=settings),
        "rabbitmq": lambda: RelierRabbitmqBroker(settings=settings),
        "quorum": lambda: RelierRabbitmqBroker(settings=settings),
        "plain-redis": lambda: install(RedisBroker(url=redis_url), settings),  # type: ignore[no-untyped-call]
        "plain-rabbitmq": lambda: install(RabbitmqBroker(url=vhost, confirm_delivery=True), settings),
    }
    with closing(made[kind]()) as broker:
        declare(broker)
        yield broker


def declare(broker: Any) -> None:
    def act(number: int) -> None:
        """Never runs in here."""

    dramatiq.actor(broker=broker, actor_name="act")(act)


def sent(broker: Any, number: int, **options: Any) -> None:
    broker.enqueue(Message("default", "act", (number,), {}, options))


def drain(broker: Any, go: Callable[[int], bool]) -> tuple[int, list[int]]:
    """Remove the messages whose numbers say so; returns how many were removed, and the numbers in their order."""
    seen: list[int] = []

    def judge(bodies: Sequence[bytes]) -> list[bool]:
        numbers = [json.loads(body)["args"][0] for body in bodies]
        seen.extend(numbers)
        return [go(number) for number in numbers]

    removed = adapter_of(broker).drain("default", judge)
    assert removed is not None
    return removed, seen


def all_of(broker: Any) -> list[int]:
    return drain(broker, lambda _: False)[1]


def depth(broker: Any) -> int | None:
    return adapter_of(broker).depth("default")


def settled(broker: Any, messages: int) -> None:
    """Wait until so many messages are there: a quorum queue takes a moment to have back what was not taken."""
    wait_until(lambda: depth(broker) == messages, what=f"{messages} messages")


def test_what_is_to_go_is_gone_and_the_rest_is_where_it_was(broker: Any) -> None:
    for i in range(12):
        sent(broker, i)

    removed, seen = drain(broker, lambda number: number % 3 == 0)

    assert (removed, seen) == (4, list(range(12)))
    settled(broker, 8)
    assert all_of(broker) == [i for i in range(12) if i % 3]
    settled(broker, 8)


def test_a_queue_of_many_pieces_is_emptied(broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relier.brokers.redis_drain.PIECE", 20)
    monkeypatch.setattr("relier.brokers.redis_drain.PAGE", 7)
    monkeypatch.setattr("relier.brokers.rabbitmq_drain.PIECE", 20)
    for i in range(64):
        sent(broker, i)

    assert drain(broker, lambda number: number != 33)[0] == 63

    settled(broker, 1)
    assert all_of(broker) == [33]
    settled(broker, 1)


def test_an_empty_queue_and_one_that_nobody_made_have_nothing_to_drain(broker: Any) -> None:
    assert drain(broker, lambda _: True) == (0, [])


def test_what_was_fetched_stays_with_its_worker(broker: Any) -> None:
    sent(broker, 1)
    consumer = broker.consume("default", prefetch=1, timeout=100)
    fetched = next(each for each in consumer if each is not None)
    sent(broker, 2)

    assert drain(broker, lambda _: True) == (1, [2])

    consumer.ack(fetched)
    consumer.close()
    assert all_of(broker) == []


@pytest.mark.parametrize("broker", ["plain-redis", "plain-rabbitmq"], indirect=True)
def test_what_dramatiq_delays_or_has_rejected_is_drained_as_well(broker: Any) -> None:
    broker.enqueue(Message("default", "act", (1,), {}, {}), delay=FAR)
    dead = Message[Any]("default", "act", (2,), {}, {})
    if isinstance(broker, RedisBroker):
        broker.client.zadd("dramatiq:default.XQ", {"dead": FAR})
        broker.client.hset("dramatiq:default.XQ.msgs", "dead", dead.encode())
    else:
        sent(broker, 0)  # declares the queues
        drain(broker, lambda number: number == 0)
        broker.channel.basic_publish("", "default.XQ", dead.encode())

    removed, seen = drain(broker, lambda _: True)

    assert (removed, sorted(seen)) == (2, [1, 2])
    assert all_of(broker) == []


# -- Redis alone ------------------------------------------------------------------------------------------------------


@pytest.fixture
def redis_broker(redis_url: str) -> Iterator[RelierRedisBroker]:
    with closing(RelierRedisBroker(settings=Settings(redis_url=redis_url))) as broker:
        declare(broker)
        yield broker


def test_behind_a_long_queue_only_the_bodies_go_and_nobody_is_given_an_empty_one(
    redis_broker: RelierRedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_drain, "SEARCHED", 5)
    monkeypatch.setattr(redis_drain, "PAGE", 5)
    for i in range(20):
        sent(redis_broker, i)

    assert drain(redis_broker, lambda number: number >= 8)[0] == 12

    assert redis_broker.do_qsize("default") == 8
    consumer = redis_broker.consume("default", prefetch=50, timeout=100)
    taken = [each.args[0] for each in (next(consumer) for _ in range(9)) if each is not None]
    assert taken == list(range(8))
    consumer.close()


def test_a_queue_that_workers_empty_meanwhile_is_drained_all_the_same(redis_broker: RelierRedisBroker) -> None:
    for i in range(30):
        sent(redis_broker, i)
    consumer = redis_broker.consume("default", prefetch=10, timeout=100)
    taken: list[int] = []

    def judge(bodies: Sequence[bytes]) -> list[bool]:
        while len(taken) < 10 and (message := next(consumer)) is not None:
            taken.append(message.args[0])
        return [json.loads(body)["args"][0] % 2 == 0 for body in bodies]

    adapter_of(redis_broker).drain("default", judge)

    assert taken == list(range(10))
    assert all_of(redis_broker) == list(range(11, 30, 2))
    assert redis_broker.connection.llen("dramatiq:default") == 10
    consumer.close()


def test_a_server_that_is_away_is_a_lost_connection(settings: Settings) -> None:
    """And no error of pika's, of which whoever drains any broker knows nothing."""
    url = "amqp://127.0.0.1:1"
    own = RelierRabbitmqBroker(url, settings=settings)
    for broker in (own, install(RabbitmqBroker(url=url), settings)):
        with pytest.raises(BrokerConnectionError):
            adapter_of(broker).drain("default", lambda bodies: [True] * len(bodies))
