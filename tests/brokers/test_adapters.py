"""How Relier reaches brokers that are not its own: stamps, lanes, what it knows of them, what it says of them."""

from __future__ import annotations

import re
import sqlite3
import threading
from pathlib import Path
from queue import PriorityQueue
from typing import Any

import pytest
import redis
from dramatiq import Broker, Message
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import BrokerConnectionError, QueueNotFound
from dramatiq.middleware import Middleware
from dramatiq.worker import ConsumerThread
from redis.sentinel import Sentinel

import relier
from relier.brokers.adapters import OwnAdapter, adapter_of
from relier.brokers.generic import Adapter
from relier.brokers.place import Place, redis_place
from relier.brokers.rabbitmq import RelierRabbitmqBroker
from relier.brokers.redis import RelierRedisBroker
from relier.brokers.stock import RabbitmqAdapter, RedisAdapter
from relier.brokers.stub import StubAdapter
from relier.envelope import keeping_stamps, republished, stamp_of
from relier.settings import Settings
from relier.store import Due, Suspicion
from tests.third_party.sqlite_broker import SqliteBroker

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Settings(redis_url="redis://127.0.0.1:1/0")


def stock_redis(**options: Any) -> RedisBroker:
    return RedisBroker(**options)  # type: ignore[no-untyped-call]


@pytest.fixture
def sqlite(tmp_path: Path) -> SqliteBroker:
    broker = SqliteBroker(str(tmp_path / "messages"))
    relier.install(broker, SETTINGS)
    broker.declare_queue("default")
    return broker


@pytest.fixture
def stub() -> StubBroker:
    broker = StubBroker()
    relier.install(broker, SETTINGS)
    broker.declare_queue("default")
    return broker


def message(**options: Any) -> Message[None]:
    return Message("default", "add", (1,), {}, options)


def sent(broker: Any, queue: str = "default") -> list[Message[None]]:
    """Return what a broker has in a queue."""
    if isinstance(broker, SqliteBroker):
        with broker.cursor() as cursor:
            rows = cursor.execute("SELECT body FROM messages WHERE queue = ? ORDER BY id", (queue,)).fetchall()
            return [Message.decode(body) for (body,) in rows]
    return [Message.decode(body) for body in broker.queues[queue].queue]


# -- which adapter --------------------------------------------------------------------------------------------------


def test_each_kind_of_broker_has_its_adapter_always_the_same_one(sqlite: SqliteBroker) -> None:
    kinds: list[tuple[Broker, type[Adapter]]] = [
        (RelierRedisBroker(settings=SETTINGS), OwnAdapter),
        (RelierRabbitmqBroker("amqp://localhost", settings=SETTINGS), OwnAdapter),
        (stock_redis(), RedisAdapter),
        (RabbitmqBroker(), RabbitmqAdapter),
        (StubBroker(), StubAdapter),
        (sqlite, Adapter),
    ]
    for broker, kind in kinds:
        assert type(adapter_of(broker)) is kind
        assert adapter_of(broker) is adapter_of(broker)


def test_every_weaker_promise_is_a_row_of_the_documentation(sqlite: SqliteBroker) -> None:
    rows = set(re.findall(r"^\| \*\*(.+?)\*\*", (ROOT / "docs" / "brokers.md").read_text(), re.MULTILINE))
    for broker in (stock_redis(), RabbitmqBroker(), sqlite):
        found = adapter_of(broker).weaknesses()
        assert found
        assert {weakness.promise for weakness in found} <= rows
        assert all(weakness.text and weakness.fix for weakness in found)
    assert adapter_of(RelierRedisBroker(settings=SETTINGS)).weaknesses() == []


def test_a_rabbitmq_without_confirms_is_told_of_them() -> None:
    def names(broker: Broker) -> set[str]:
        return {weakness.promise for weakness in adapter_of(broker).weaknesses()}

    assert "accepted" in names(RabbitmqBroker())
    assert "accepted" not in names(RabbitmqBroker(confirm_delivery=True))


# -- where it is ----------------------------------------------------------------------------------------------------


def test_places_match_by_address_or_by_the_servers_own_name() -> None:
    here = Place("redis", "redis://a:1/0 dramatiq", "name")
    assert here.matches(here)
    assert here.matches(Place("redis", "redis://b:1/0 dramatiq", "name"))
    assert here.matches(None)
    assert not here.matches(Place("redis", "redis://b:1/0 dramatiq", ""))
    assert not here.matches(Place("redis", "redis://b:1/0 dramatiq", "other"))
    assert not here.matches(Place("rabbitmq", "redis://a:1/0 dramatiq", "name"))


def test_what_an_older_or_newer_worker_told_is_not_misunderstood() -> None:
    assert Place.of(None) is None
    assert Place.of({"family": "redis", "address": "", "server": "", "more": 1}) is None
    assert Place.of({"family": "redis"}) == Place("redis")


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_a_redis_is_known_under_every_address(client: redis.Redis) -> None:
    broker = stock_redis(client=client)
    assert redis_place(client, "dramatiq").server == ""  # Looking changes nothing.
    adapter_of(broker).begin_work()
    first = adapter_of(broker).place()

    adapter_of(broker).begin_work()

    assert first.server and adapter_of(broker).place() == first
    assert not first.matches(redis_place(client, "other"))
    own = RelierRedisBroker(settings=Settings(redis_url=f"unix://{client.connection_pool.connection_kwargs['path']}"))
    assert own.place().matches(first)


def test_broker_and_store_share_a_redis_only_when_it_is_the_same_one() -> None:
    def master(service: str, *nodes: tuple[str, int]) -> redis.Redis:
        found: redis.Redis = Sentinel(list(nodes)).master_for(service)
        return found

    def share(one: redis.Redis, other: redis.Redis) -> bool:
        return adapter_of(stock_redis(client=one)).shares_redis(other)

    local = redis.Redis(host="a", port=1, db=0)
    assert share(local, redis.Redis(host="a", port=1, db=3))
    assert not share(local, redis.Redis(host="a", port=2))
    assert not share(local, redis.Redis(unix_socket_path="/tmp/a"))
    assert share(master("one", ("s", 1)), master("one", ("s", 1)))
    assert not share(master("one", ("s", 1)), master("two", ("s", 1)))
    assert not share(master("one", ("s", 1)), master("one", ("t", 1)))
    assert not share(master("one", ("s", 1)), redis.Redis())


# -- stamps ---------------------------------------------------------------------------------------------------------


def test_a_callers_message_stays_as_it_is_and_is_a_task_each_time(sqlite: SqliteBroker) -> None:
    original = message()
    first, second = sqlite.enqueue(original), sqlite.enqueue(original)

    assert original.options == {}
    assert stamp_of(first).task_id == original.message_id
    assert stamp_of(second).task_id.startswith(f"{original.message_id}~")
    assert [stamp_of(m) for m in sent(sqlite)] == [stamp_of(first), stamp_of(second)]


def published(copy: Message[Any], fence: int) -> Message[Any]:
    """Return what the store publishes of a task."""
    stamp = stamp_of(copy)
    due = Due(stamp.task_id, stamp.shard, fence, "s", Suspicion.SUSPECT, 2, 0, "default", copy.actor_name, b"")
    return republished(copy, due, "default")


def test_a_message_that_was_sent_is_a_task_of_its_own_when_it_is_sent_again(sqlite: SqliteBroker) -> None:
    first = sqlite.enqueue(message())
    old = published(first, 7)

    again = stamp_of(sqlite.enqueue(old))

    assert again.task_id.startswith(f"{first.message_id}~")
    assert (again.fence, again.suspicion) == (0, Suspicion.NONE)
    assert again.created_ms >= stamp_of(first).created_ms  # a purge in between concerns the first one alone


def test_the_payload_version_is_that_of_the_code_that_wrote_the_payload(sqlite: SqliteBroker) -> None:
    actor = relier.rl_actor(lambda n: None, broker=sqlite, actor_name="add", schema_version=3)
    first = sqlite.enqueue(message())
    actor.options["schema_version"] = 4
    assert stamp_of(sqlite.enqueue(first)).payload_version == 3


def test_copies_of_the_store_and_delays_that_are_over_keep_their_stamp(sqlite: SqliteBroker) -> None:
    first = sqlite.enqueue(message())
    with keeping_stamps():
        assert sqlite.enqueue(first).options == first.options

    class Promoting(ConsumerThread):
        def run(self) -> None:
            promoted.append(sqlite.enqueue(first))

    promoted: list[Message[None]] = []
    queue: PriorityQueue[Any] = PriorityQueue()
    thread = Promoting(broker=sqlite, queue_name="default", prefetch=1, work_queue=queue, worker_timeout=100)
    thread.start()
    thread.join()
    assert promoted[0].options == first.options


def test_one_threads_copies_do_not_let_anothers_keep_their_stamps(sqlite: SqliteBroker) -> None:
    first = sqlite.enqueue(message())
    found: list[Message[None]] = []
    with keeping_stamps():
        thread = threading.Thread(target=lambda: found.append(sqlite.enqueue(first)))
        thread.start()
        thread.join()
    assert stamp_of(found[0]) != stamp_of(first)


def test_a_broker_that_gives_hooks_the_callers_object_cannot_spoil_it(tmp_path: Path) -> None:
    class Noting(Middleware):
        def before_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
            message.options["noted"] = message.options["relier"]["id"]

    broker = SqliteBroker(str(tmp_path / "messages"), middleware=[Noting()])
    relier.install(broker, SETTINGS)
    broker.declare_queue("default")
    original = message()
    broker.enqueue(original)

    assert original.options == {}
    assert sent(broker)[0].options["noted"] == original.message_id


def test_a_broker_that_returns_nothing_still_gives_a_receipt(tmp_path: Path) -> None:
    class Silent(SqliteBroker):
        def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Any:
            super().enqueue(message, delay=delay)

    broker = Silent(str(tmp_path / "messages"))
    relier.install(broker, SETTINGS)
    receipt = relier.rl_actor(lambda: None, broker=broker, actor_name="nothing").push()
    assert receipt.id == sent(broker)[0].message_id


# -- lanes ----------------------------------------------------------------------------------------------------------


def due(fence: int = 5) -> Message[None]:
    first = message()
    return published(first, fence)


def test_what_is_put_back_goes_to_the_queue_where_there_are_no_lanes(sqlite: SqliteBroker) -> None:
    copy = due()
    adapter_of(sqlite).publish([copy])
    assert [stamp_of(m) for m in sent(sqlite)] == [stamp_of(copy)]


def test_what_is_put_back_goes_to_the_lane_without_eta_and_unclaimed_to_the_queue(stub: StubBroker) -> None:
    adapter, copy, other = adapter_of(stub), due(), due()
    adapter.publish([copy, other])
    assert [m.message_id for m in sent(stub, "default.DQ")] == [copy.message_id, other.message_id]
    assert all("eta" not in m.options and m.queue_name == "default.DQ" for m in sent(stub, "default.DQ"))

    adapter.publish([copy])
    assert [m.message_id for m in sent(stub)] == [copy.message_id]

    adapter.publish([published(copy, 6)])  # It was claimed, and put back again.
    assert len(sent(stub, "default.DQ")) == 3


def test_a_sweeper_that_does_not_know_a_queue_concludes_its_lane_from_others(tmp_path: Path) -> None:
    class Lanes(StubBroker):
        def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
            taken.append(message.queue_name)
            return message

    taken: list[str] = []
    broker = Lanes()
    relier.install(broker, SETTINGS)
    adapter_of(broker).publish([due()])
    broker.declare_queue("other")
    adapter_of(broker).publish([due()])
    assert taken == ["default", "default.DQ"]


def test_a_broker_that_refuses_its_own_lane_gets_the_queue(stub: StubBroker) -> None:
    inner = stub.enqueue

    def refusing(message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        if message.queue_name.endswith(".DQ"):
            raise QueueNotFound(message.queue_name)  # type: ignore[no-untyped-call]
        return inner(message, delay=delay)

    stub.enqueue = refusing  # type: ignore[method-assign]
    adapter_of(stub).publish([due()])
    assert len(sent(stub)) == 1


def test_whatever_a_broker_raises_is_a_lost_connection_to_the_sweep(
    sqlite: SqliteBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(sqlite, "enqueue", refuse)
    with pytest.raises(BrokerConnectionError):
        adapter_of(sqlite).publish([due()])


def test_publishing_to_a_queue_of_others_does_not_begin_to_consume_it(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = RabbitmqBroker()
    seen: list[tuple[str, set[str]]] = []

    def enqueue(message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        seen.append((message.queue_name, set(broker.queues)))
        return message

    monkeypatch.setattr(broker, "enqueue", enqueue)
    broker.declare_queue("known")
    adapter_of(broker).publish([due()])
    assert seen == [("default.DQ", {"known", "default"})]  # Else RabbitmqBroker declares it, and consumers are told.
    assert broker.queues == {"known"}


def test_a_worker_process_confirms_what_it_sends_to_rabbitmq() -> None:
    broker = RabbitmqBroker()
    relier.install(broker, SETTINGS)
    assert not broker.confirm_delivery
    adapter_of(broker).begin_work()
    assert broker.confirm_delivery


# -- StubBroker's namespace -----------------------------------------------------------------------------------------


def test_each_stub_broker_has_a_namespace_of_its_own() -> None:
    names = set()
    for _ in range(2):
        broker = StubBroker()
        relier.install(broker, Settings(redis_url="redis://127.0.0.1:1/0", namespace="n" * 64))
        names.add(broker.__dict__["relier_installation"].settings.namespace)
    assert len(names) == 2
    assert all(re.fullmatch(r"n{32}\.stub-\d+-[0-9a-f]{8}", name) and len(name) <= 64 for name in names)
