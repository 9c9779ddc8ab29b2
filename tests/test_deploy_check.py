"""Whether everything that waits has a path to this code: what is found where, and what stands in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq import Message, group, pipeline
from dramatiq.brokers.redis import RedisBroker

from relier import install, rl_actor
from relier.brokers.adapters import adapter_of
from relier.brokers.redis import RelierRedisBroker
from relier.deploy_check import Code, Kind, Outlook, outlook
from relier.envelope import Stamp, stamp_of, stamped
from relier.schema import Migrations
from relier.sending import sending_of
from relier.settings import Settings
from relier.store import Failure, Store

Broker = dramatiq.Broker


def resize() -> None: ...


def mail() -> None: ...


def declare(broker: Broker, **versions: int) -> Broker:
    """Declare `resize` and `mail` with these versions."""
    for fn in (resize, mail):
        if fn.__name__ in versions:
            rl_actor(fn, broker=broker, schema_version=versions[fn.__name__])
    return broker


@pytest.fixture(params=["own", "plain"])
def make_broker(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Callable[[], Broker]]:
    """Makes brokers on the store's Redis: the producer's, and that of the code that is checked."""
    made: list[Broker] = []

    def make() -> Broker:
        plain = request.param == "plain"
        made.append(
            install(RedisBroker(url=settings.redis_url), settings)  # type: ignore[no-untyped-call]
            if plain
            else RelierRedisBroker(settings=settings)
        )
        return made[-1]

    yield make
    for broker in made:
        broker.close()


@pytest.fixture
def old(make_broker: Callable[[], Broker]) -> Broker:
    """The producers' code."""
    return declare(make_broker(), resize=1, mail=2)


@pytest.fixture
def look(make_broker: Callable[[], Broker], store: Store) -> Callable[..., Outlook]:
    """Look ahead with code of these versions, and a migration of each actor from its first version."""

    def look(**versions: int) -> Outlook:
        migrations = Migrations()
        for actor in versions:
            migrations.add(actor, 1, dict)
        return outlook(store, declare(make_broker(), **versions), migrations)

    return look


def sent(broker: Broker, actor: str) -> Message[Any]:
    return broker.get_actor(actor).send()


def places(found: Outlook) -> dict[tuple[str, int], dict[str, int]]:
    return {(kind.actor, kind.version): dict(counts) for kind, counts in found.counts.items()}


def obstacles(found: Outlook) -> dict[tuple[str, int], str]:
    return {(kind.actor, kind.version): found.code.obstacle(kind) for kind in found.without_path}


def test_what_is_queued_scheduled_running_and_dead_is_counted_once_by_actor_and_version(
    old: Broker, store: Store, settings: Settings, look: Callable[..., Outlook]
) -> None:
    running, dead, _ = (sent(old, "resize") for _ in range(3))
    for message in (running, dead):
        sending = sending_of(old, message, stamp_of(message), settings)
        claim = store.tasks.claim("w1", sending, b"n", 0, slot_free=True)
    store.tasks.fail("w1", sending, claim.fence, Failure(False, 0, True, False, "ValueError", b"", ""))
    later = stamped(Message("default", "mail", (), {}, {}), Stamp("later", 0, payload_version=2))
    store.tasks.schedule(sending_of(old, later, stamp_of(later), settings), 60)
    sent(old, "mail")

    found = look(resize=1, mail=2)

    assert places(found) == {
        ("resize", 1): {"queued": 1, "running": 1, "dead": 1},
        ("mail", 2): {"queued": 1, "scheduled": 1},
    }
    assert found.without_path == []
    assert (found.unread, found.undecodable) == ({}, 0)


def test_each_obstacle_is_named(old: Broker, look: Callable[..., Outlook]) -> None:
    for actor in ("resize", "mail"):
        sent(old, actor)
    assert obstacles(look(resize=1)) == {("mail", 2): "this code has no such actor"}
    assert obstacles(look(resize=2, mail=1)) == {("mail", 2): "newer than this code, which has version 1"}
    assert obstacles(look(resize=3, mail=4)) == {
        ("resize", 1): "no migration from version 2 to 3",
        ("mail", 2): "no migration from version 2 to 3",
    }
    found = look(resize=2, mail=2)
    assert obstacles(found) == {}
    assert [found.code.path(kind) for kind in sorted(found.counts)] == ["as it is", "migrated to 2"]


def test_what_a_task_brings_along_is_looked_at_as_well(old: Broker, look: Callable[..., Outlook]) -> None:
    first, second = old.get_actor("resize"), old.get_actor("mail")
    pipeline([first.message(), first.message(), second.message()], broker=old).run()  # type: ignore[no-untyped-call]
    members = group([first.message()], broker=old)  # type: ignore[no-untyped-call]
    members.add_completion_callback(second.message())  # type: ignore[no-untyped-call]
    members.run()  # type: ignore[no-untyped-call]
    first.send_with_options(on_success="gone")

    found = look(resize=1, mail=1)

    assert places(found) == {
        ("resize", 1): {"queued": 3, "later": 1},
        ("mail", 2): {"later": 2},
        ("gone", 1): {"later": 1},
    }
    assert set(obstacles(found)) == {("mail", 2), ("gone", 1)}


def test_a_queue_that_nobody_will_consume_is_an_obstacle(old: Broker, look: Callable[..., Outlook]) -> None:
    rl_actor(lambda: None, broker=old, actor_name="other", queue="low_priority")
    old.enqueue(Message("low_priority", "resize", (), {}, {}))
    assert obstacles(look(resize=1)) == {("resize", 1): "no actor of this code declares the queue 'low_priority'"}


def test_bytes_that_no_code_can_read_are_counted_apart(
    old: Broker, store: Store, settings: Settings, look: Callable[..., Outlook]
) -> None:
    with_redis = store.client
    with_redis.hset("dramatiq:default.msgs", "bad", b"\xff")
    with_redis.hset("dramatiq:default.XQ.msgs", "dead", b"\xff")
    with_redis.hset("dramatiq:other:default.msgs", "foreign", b"\xff")
    sending = sending_of(old, Message("default", "", (), {}, {}), Stamp("raw", 0), settings)
    store.tasks.dead_letter(sending, "PayloadIntegrityError", b"")
    assert look(resize=1).undecodable == 2


def test_a_broker_that_cannot_be_read_is_said_to_be_and_judged_by_what_living_workers_run(
    old: Broker, store: Store, look: Callable[..., Outlook], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(adapter_of(old))
    monkeypatch.setattr(kind, "waiting", lambda self: None)
    store.fleet.register("w1", {"queues": ["default", "reports"], "actors": "d"}, {"resize": 1, "mail": 2, "gone": 1})
    store.fleet.register("r", {"role": "resurrector", "queues": [], "actors": "e"}, {"other": 1})
    depths: dict[str, int | None] = {"default": 3, "reports": 0}
    monkeypatch.setattr(kind, "depth", lambda self, queue: depths[queue])

    found = look(resize=3, mail=2)
    assert found.unread == {"default": 3}
    assert [(possible.actor, possible.version) for possible in found.possible] == [("gone", 1), ("resize", 1)]
    assert found.without_path == []

    depths.update(default=0)
    assert look(resize=3, mail=2).possible == []
    depths.update(default=None)
    assert look(resize=1, mail=2).unread == {"default": None}


def test_an_unversioned_dead_letter_of_an_earlier_relier_counts_as_the_first_version() -> None:
    code = Code({"resize": 2}, frozenset({"default"}), Migrations())
    assert code.obstacle(Kind("resize", 0, "default")) == "no migration from version 1 to 2"
