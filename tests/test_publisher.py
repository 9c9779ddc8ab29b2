"""Publishing: in pieces, orphans first, and never so long that a death goes unseen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
from dramatiq import Broker, Message

from relier.knowledge import FleetView, Knowledge
from relier.publisher import FED, PIECE, Publisher
from relier.settings import Settings
from relier.store import SHARDS, KeyTerms, Sending, Store
from relier.sweeper import Sweeper


class Here(FleetView):
    """One worker that has every actor."""

    def look(self) -> None:
        self.knowledge = Knowledge({"default": {None}}, {None})
        self.looks += 1


class Lanes:
    """A broker that only notes what is published."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.waiting = 0
        self.published: list[str] = []

    def depth(self, queues: set[str]) -> int:
        return self.waiting if queues else 0

    def publish(self, messages: list[Message[Any]]) -> None:
        self.published += [message.message_id for message in messages]


@pytest.fixture
def store(client: redis.Redis) -> Iterator[Store]:
    store = Store(client)
    yield store
    store.runner.close()


@pytest.fixture
def lanes() -> Lanes:
    return Lanes()


@pytest.fixture
def publisher(store: Store, lanes: Lanes) -> Publisher:
    return Publisher(store, lanes, Settings())  # type: ignore[arg-type]


def _here(publisher: Publisher) -> FleetView:
    here = Here(publisher.store)
    here.look()
    return here


def _sendings(shards: list[int]) -> list[Sending]:
    messages = [Message[None]("default", "act", (), {}, {}) for _ in shards]
    return [
        Sending(m.message_id, shard, "default", "act", m.encode()) for m, shard in zip(messages, shards, strict=True)
    ]


def _due(store: Store, shards: list[int]) -> list[str]:
    sendings = _sendings(shards)
    store.tasks.schedule_many((sending, 0) for sending in sendings)
    return [sending.task_id for sending in sendings]


def _orphans(store: Store, shards: list[int]) -> list[str]:
    sendings = _sendings(shards)
    for sending in sendings:
        store.tasks.claim("w1", sending, b"n", 0, slot_free=True)
    store.tasks.bury("w1", sorted(set(shards)), "crash")
    return [sending.task_id for sending in sendings]


def _all(publisher: Publisher, shards: range = range(SHARDS)) -> int:
    pieces = 1
    while publisher.publish(shards, _here(publisher)):
        pieces += 1
    return pieces


def test_everything_due_is_published_once_in_pieces(store: Store, lanes: Lanes, publisher: Publisher) -> None:
    due = _due(store, [i % SHARDS for i in range(3 * PIECE)])

    assert publisher.publish(range(SHARDS), _here(publisher))
    assert len(lanes.published) <= PIECE
    _all(publisher)

    assert sorted(lanes.published) == sorted(due)


def test_a_single_full_shard_is_not_published_by_drops(store: Store, lanes: Lanes, publisher: Publisher) -> None:
    due = _due(store, [7] * 1000)
    assert _all(publisher) <= 15
    assert sorted(lanes.published) == sorted(due)


def test_orphans_come_first_wherever_they_are(store: Store, lanes: Lanes, publisher: Publisher) -> None:
    _due(store, [i % SHARDS for i in range(4 * PIECE)])
    orphans = _orphans(store, [3, SHARDS - 1, SHARDS - 1])
    publisher.publish(range(SHARDS), _here(publisher))
    assert sorted(lanes.published[:3]) == sorted(orphans)


def test_orphans_do_not_stand_behind_a_backlog_in_the_lane(store: Store, lanes: Lanes, publisher: Publisher) -> None:
    due = _due(store, [i % SHARDS for i in range(4 * PIECE)])
    lanes.waiting = FED + 1
    assert not publisher.publish(range(SHARDS), _here(publisher))
    assert lanes.published == []

    orphans = _orphans(store, list(range(SHARDS)))
    _all(publisher)
    assert sorted(lanes.published) == sorted(orphans)

    lanes.waiting = 0
    _all(publisher)
    assert sorted(lanes.published) == sorted(due + orphans)


def test_a_lane_that_is_too_deep_takes_no_orphans_either(
    store: Store, lanes: Lanes, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    _orphans(store, [1])
    lanes.waiting = publisher.settings.resurrection_max_queue_depth + 1
    assert not publisher.publish(range(SHARDS), _here(publisher))
    assert lanes.published == []
    assert "Resurrection scan deferred: recovery queue backlog too deep" in caplog.text


def test_a_sweep_looks_at_the_fleet_again_while_there_is_more_to_publish(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from relier.brokers import default_broker
    from relier.process import WorkerProcess

    broker = default_broker(settings)
    sweeper = Sweeper(WorkerProcess(broker, Store.from_settings(settings), settings), dedicated=True)
    looks: list[int] = []
    monkeypatch.setattr("relier.sweeper.MOMENT", 0.0)
    monkeypatch.setattr(sweeper, "_watch", lambda: looks.append(1))
    monkeypatch.setattr(sweeper.publisher, "publish", lambda shards, consumed: True)

    assert [sweeper.tick() for _ in range(3)] == [True] * 3
    assert len(looks) == 3

    monkeypatch.setattr(sweeper.publisher, "publish", lambda shards, consumed: False)
    assert not sweeper.tick()
    sweeper.stop()
    sweeper.store.close()
    broker.close()


def test_keys_whose_waiters_are_not_all_let_go_are_work_for_at_once(store: Store, publisher: Publisher) -> None:
    """Nothing is published for them, so this alone must not end the sweep."""
    terms = KeyTerms("k", "wait", False, False, ttl=60, in_flight=60, retention=60, result_ttl=60)
    owner, *waiters = (replace(sending, key=terms) for sending in _sendings([7] * 251))
    fence = store.tasks.claim("w1", owner, b"n", 0, slot_free=True).fence
    for waiter in waiters:
        store.tasks.claim("w1", waiter, b"n", 0, slot_free=True)
    protections = json.dumps({"key": terms.terms()})
    assert store.tasks.commit("w1", owner, fence, hooks=False, protections=protections)
    assert store.counters()["completed"] == 101

    _all(publisher)

    assert store.counters()["completed"] == 251
