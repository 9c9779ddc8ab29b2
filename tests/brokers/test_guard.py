"""The consumers of brokers that are not Relier's lose nothing that Relier can keep."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq import Message
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import DecodeError

import relier
from relier.brokers.adapters import adapter_of
from relier.brokers.guard import GuardedConsumer
from relier.brokers.lanes import give_back
from relier.installation import Installation, installation_of
from relier.settings import Settings
from relier.store import SHARDS
from tests.third_party.sqlite_broker import SqliteBroker

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


@dataclass
class Inner(Consumer):
    """A broker's consumer that notes what it is told."""

    arriving: deque[Any] = field(default_factory=deque)
    done: list[tuple[str, Any]] = field(default_factory=list)
    flavour: str = "plain"
    connection: Any = field(default_factory=lambda: SimpleNamespace(is_open=True))

    def __next__(self) -> MessageProxy | None:
        item = self.arriving.popleft()
        if isinstance(item, Exception):
            raise item
        return item if item is None else MessageProxy(item)

    def ack(self, message: MessageProxy) -> None:
        self.done.append(("ack", message.message_id))

    def nack(self, message: MessageProxy) -> None:
        self.done.append(("nack", message.message_id))

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        self.done += [("requeue", message.message_id) for message in messages]


def message(**options: Any) -> Message[None]:
    return Message("default", "add", (1,), {}, options)


@pytest.fixture
def sqlite(settings: Settings, tmp_path: Any) -> SqliteBroker:
    broker = SqliteBroker(str(tmp_path / "messages"))
    relier.install(broker, settings)
    broker.declare_queue("default")
    return broker


@pytest.fixture
def installation(sqlite: SqliteBroker) -> Installation:
    return installation_of(sqlite)


@pytest.fixture
def inner() -> Inner:
    return Inner()


@pytest.fixture
def guard(sqlite: SqliteBroker, installation: Installation, inner: Inner) -> GuardedConsumer:
    return GuardedConsumer(inner, "default", adapter_of(sqlite), installation)


def dead_letters(installation: Installation) -> list[tuple[str, str, bytes]]:
    """Return id, reason and body of each."""
    store = installation.store
    found = [(task, store.records([task], shard)[task]) for task, shard, _ in store.dead_letters(10)]
    return [(task, record.reason, record.body) for task, record in found]


def taken(guard: GuardedConsumer, inner: Inner, item: Message[None]) -> MessageProxy:
    inner.arriving.append(item)
    found = next(guard)
    assert found is not None
    return found


def test_ordinary_messages_pass(guard: GuardedConsumer, inner: Inner) -> None:
    inner.arriving.append(None)
    assert next(guard) is None
    found = taken(guard, inner, message())
    guard.ack(found)
    guard.requeue([found])
    assert inner.done == [("ack", found.message_id), ("requeue", found.message_id)]
    assert guard.flavour == "plain"


def test_bytes_that_cannot_be_decoded_are_one_dead_letter_however_often_they_come(
    guard: GuardedConsumer, inner: Inner, installation: Installation
) -> None:
    error = DecodeError("no", b"\xffnot a message", ValueError())  # type: ignore[no-untyped-call]
    inner.arriving.extend([error, error])
    assert next(guard) is None
    assert next(guard) is None
    ((task, reason, body),) = dead_letters(installation)
    assert task.startswith("raw-")
    assert (reason, body) == ("PayloadIntegrityError", b"\xffnot a message")


def test_a_rejected_message_is_a_dead_letter_of_the_store_alone(
    guard: GuardedConsumer, inner: Inner, installation: Installation
) -> None:
    dramatiq.actor(broker=guard.adapter.broker, actor_name="add")(print)
    found = taken(guard, inner, message())
    found.fail()
    found.stuff_exception(LookupError("add"))
    guard.nack(found)
    assert inner.done == [("ack", found.message_id)]
    assert [(task, reason) for task, reason, _ in dead_letters(installation)] == [(found.message_id, "LookupError")]


class Process:
    """What a guard needs of a worker's process: a store that is away once, and one that is not the broker's Redis."""

    identity = "host:1:w1"
    shares_redis = False

    def __init__(self, generations: list[int]) -> None:
        self._generations = generations
        self.refenced: list[str] = []

    @property
    def generation(self) -> int:
        return self._generations.pop(0)

    def patiently(self, call: Callable[[], Any]) -> Any:
        return call()

    def refence(self, identity: str) -> None:
        self.refenced.append(identity)


def test_a_refused_message_is_removed_once_its_dead_letter_is_durable(
    guard: GuardedConsumer, inner: Inner, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    process: Any = Process([1, 2, 2, 2])
    installation.process = process
    waits: list[int] = []
    monkeypatch.setattr(installation.store.durability, "wait", lambda: waits.append(len(inner.done)))
    inner.arriving.append(message(relier="broken"))

    assert next(guard) is None

    assert waits == [0, 0]  # Again, since the connection to the store was another one.
    assert len(inner.done) == len(dead_letters(installation)) == 1


def test_what_the_store_does_not_take_from_a_worker_that_was_declared_dead_goes_back(
    guard: GuardedConsumer, inner: Inner, installation: Installation, sqlite: SqliteBroker
) -> None:
    process: Any = Process([1, 1])
    installation.process = process
    installation.store.tasks.bury(process.identity, range(SHARDS), "crash")
    found = taken(guard, inner, message())
    found.fail()

    guard.nack(found)

    assert process.refenced == [process.identity]
    assert installation.store.counters().get("accepted", 0) == 0
    assert sqlite.count("default") == 1


def test_a_tick_of_a_resurrector_is_no_dead_letter(
    guard: GuardedConsumer, inner: Inner, installation: Installation
) -> None:
    tick = message().copy(queue_name="relier.resurrector.1")
    guard.nack(taken(guard, inner, tick))
    assert inner.done == [("ack", tick.message_id)]
    assert dead_letters(installation) == []


def test_a_copy_that_goes_back_is_there_before_the_other_one_is_removed(
    guard: GuardedConsumer, inner: Inner, sqlite: SqliteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = taken(guard, inner, sqlite.enqueue(message()))
    give_back(found)
    found.options["store_results"] = False  # As whoever skips it does.
    assert sqlite.count("default") == 1

    guard.ack(found)

    assert sqlite.count("default") == 2
    with sqlite.cursor() as cursor:
        bodies = [Message.decode(body) for (body,) in cursor.execute("SELECT body FROM messages")]
    assert bodies[0].options == bodies[1].options  # The same task.
    assert inner.done == [("ack", found.message_id)]


def test_a_copy_that_cannot_go_back_is_not_removed(
    guard: GuardedConsumer, inner: Inner, sqlite: SqliteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(message: Message[Any]) -> None:
        raise ConnectionError("away")

    found = taken(guard, inner, message())
    give_back(found)
    monkeypatch.setattr(sqlite, "enqueue", refuse)
    with pytest.raises(ConnectionError):
        guard.ack(found)
    assert inner.done == []


# -- Dramatiq's own -------------------------------------------------------------------------------------------------


def test_rabbitmq_gets_acknowledgements_only_by_the_consumer_that_delivered(settings: Settings) -> None:
    broker = relier.install(RabbitmqBroker(), settings)
    adapter, installation = adapter_of(broker), installation_of(broker)
    old_inner, new_inner = Inner(), Inner()
    old = adapter.guarded(old_inner, "default", installation)
    assert isinstance(old, GuardedConsumer)
    held, ended = taken(old, old_inner, message()), taken(old, old_inner, message())
    old.ack(ended)
    assert held.may_start()

    old_inner.connection.is_open = False
    new = adapter.guarded(new_inner, "default", installation)
    new.ack(held)

    assert not held.may_start()  # RabbitMQ has delivered it to somebody else.
    assert old_inner.done == [("ack", ended.message_id)]
    assert new_inner.done == []


def test_a_copy_goes_back_to_rabbitmq_by_a_rejection_with_requeue(settings: Settings) -> None:
    calls: list[Any] = []

    class Channel:
        def basic_nack(self, tag: int, requeue: bool) -> None:
            calls.append((tag, requeue))

    @dataclass
    class Rabbit(Inner):
        known_tags: set[int] = field(default_factory=lambda: {5})
        channel: Any = field(default_factory=Channel)

    broker = relier.install(RabbitmqBroker(), settings)
    inner = Rabbit()
    inner.connection.add_callback_threadsafe = lambda call: call()
    guard = adapter_of(broker).guarded(inner, "default", installation_of(broker))
    assert isinstance(guard, GuardedConsumer)
    found = taken(guard, inner, message())
    found.__dict__["_tag"] = 5
    give_back(found)

    guard.ack(found)

    assert calls == [(5, True)]
    assert inner.known_tags == set()
    assert inner.done == []


def test_delayed_messages_that_dramatiq_drops_go_back_to_their_lane(settings: Settings, client: redis.Redis) -> None:
    broker = relier.install(RedisBroker(client=client), settings)  # type: ignore[no-untyped-call]
    adapter, installation = adapter_of(broker), installation_of(broker)
    first, second, third = Inner(), Inner(), Inner()
    guard = adapter.guarded(first, "default.DQ", installation)
    assert isinstance(guard, GuardedConsumer)
    waiting = taken(guard, first, message(eta=1, redis_message_id="a"))
    guard.ack(taken(guard, first, message(eta=2, redis_message_id="b")))
    taken(guard, first, message(redis_message_id="c"))

    adapter.guarded(second, "default.DQ", installation)  # After a connection error.
    adapter.guarded(third, "default.DQ", installation)

    assert second.done == [("requeue", waiting.message_id)]
    assert third.done == []


def test_bytes_that_cannot_be_decoded_strand_no_neighbour_on_redis(settings: Settings, client: redis.Redis) -> None:
    """Dramatiq's consumer ends with the error, and forgets what it had fetched together with them."""
    broker: Any = relier.install(RedisBroker(client=client), settings)  # type: ignore[no-untyped-call]
    broker.declare_queue("default")
    sent = [broker.enqueue(message()).message_id for _ in range(3)]
    client.hset("dramatiq:default.msgs", "poison", b"\xff")
    client.rpush("dramatiq:default", "poison")
    sent += [broker.enqueue(message()).message_id for _ in range(3)]
    consumer = broker.consume("default", prefetch=10, timeout=10)

    arrived: list[str] = []
    while len(arrived) < 6:
        if (found := next(consumer)) is not None:
            arrived.append(found.message_id)
            consumer.ack(found)

    assert arrived == sent
    assert [(reason, body) for _, reason, body in dead_letters(installation_of(broker))] == [
        ("PayloadIntegrityError", b"\xff")
    ]
