"""What the store publishes is examined first, and what was refused once is examined again when it is released."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from dramatiq import Message

from relier.brokers.rejected import keep_refused
from relier.envelope import stamp_first_hand, stamp_of
from relier.errors import PayloadIntegrityError
from relier.integrity import Integrity
from relier.publisher import Publisher
from relier.settings import Settings
from relier.store import SHARDS, Record, Sending, Store
from tests.test_publisher import Here, Lanes

KEYS, OTHER = "k1:" + 32 * "a", "k2:" + 32 * "b"


@pytest.fixture
def store(client: redis.Redis) -> Iterator[Store]:
    store = Store(client)
    yield store
    store.runner.close()


@pytest.fixture
def lanes() -> Lanes:
    return Lanes()


def sweep(store: Store, lanes: Lanes, keys: str, **settings: Any) -> None:
    here = Here(store)
    here.look()
    publisher = Publisher(store, lanes, Settings(signing_keys=keys, **settings))  # type: ignore[arg-type]
    publisher.publish(range(SHARDS), here)


def sent(keys: str | None) -> Message[None]:
    """Return a message as it arrives from a producer."""
    fresh = stamp_first_hand(Message[None]("default", "act", (1,), {}, {}))
    if keys is not None:
        Integrity.of(Settings(signing_keys=keys)).seal(fresh)
    return Message.decode(fresh.encode())


def due(store: Store, message: Message[Any], body: bytes | None = None) -> str:
    stamp = stamp_of(message)
    sending = Sending(stamp.task_id, stamp.shard, "default", "act", message.encode() if body is None else body)
    store.tasks.schedule(sending, 0)
    return stamp.task_id


def released(store: Store, message: Message[Any]) -> tuple[str, int]:
    """Let a message be refused, and its dead letter be released; returns where that is."""
    keep_refused(store, message, PayloadIntegrityError("bad"))
    ((letter, shard, _),) = store.dead_letters(1)
    assert letter.startswith("raw-")
    assert store.tasks.hold(letter, "release", "somebody", shard)[0] == "released"
    return letter, shard


def record(store: Store, task_id: str) -> Record:
    found = store.record(task_id)
    assert found is not None
    return found


@pytest.mark.parametrize("keys", [None, OTHER], ids=["unsigned", "of an unknown key"])
def test_a_record_whose_message_is_not_in_order_becomes_a_dead_letter(
    store: Store, lanes: Lanes, keys: str | None
) -> None:
    task = due(store, sent(keys))
    sweep(store, lanes, KEYS)
    assert lanes.published == []
    assert (record(store, task).state, record(store, task).reason) == ("d", "PayloadIntegrityError")


def test_such_a_record_can_be_released_once_the_key_is_there(store: Store, lanes: Lanes) -> None:
    task = due(store, sent(OTHER))
    sweep(store, lanes, KEYS)
    assert store.tasks.hold(task, "release", "somebody")[0] == "released"
    sweep(store, lanes, f"{KEYS},{OTHER}")
    assert lanes.published == [task]


def test_a_record_with_the_message_of_another_task_becomes_a_dead_letter(store: Store, lanes: Lanes) -> None:
    task = due(store, sent(KEYS), body=sent(KEYS).encode())
    sweep(store, lanes, KEYS)
    assert lanes.published == []
    assert record(store, task).reason == "PayloadIntegrityError"


def test_while_signatures_are_not_required_the_unsigned_is_published(store: Store, lanes: Lanes) -> None:
    task = due(store, sent(None))
    sweep(store, lanes, KEYS, signing_required=False)
    assert lanes.published == [task]


def test_released_bytes_that_verify_by_now_begin_as_the_task_that_they_are(store: Store, lanes: Lanes) -> None:
    message = sent(OTHER)
    letter, _ = released(store, message)
    sweep(store, lanes, f"{KEYS},{OTHER}")
    assert record(store, letter).state == "e"
    assert record(store, message.message_id).body == message.encode()
    assert store.counters()["discarded:reissued"] == 1

    sweep(store, lanes, f"{KEYS},{OTHER}")
    assert lanes.published == [message.message_id]


def test_released_bytes_for_a_queue_that_nobody_consumes_wait_for_somebody(store: Store, lanes: Lanes) -> None:
    fresh = stamp_first_hand(Message[None]("elsewhere", "act", (1,), {}, {}))
    Integrity.of(Settings(signing_keys=OTHER)).seal(fresh)
    message = Message.decode(fresh.encode())
    released(store, message)
    for _ in range(2):
        sweep(store, lanes, f"{KEYS},{OTHER}")
    assert lanes.published == []
    assert record(store, message.message_id).reason == "no consumer"


def test_released_bytes_of_a_task_that_is_known_begin_nothing(store: Store, lanes: Lanes) -> None:
    message = sent(OTHER)
    due(store, message)
    letter, _ = released(store, message)
    for _ in range(2):
        sweep(store, lanes, f"{KEYS},{OTHER}")
    assert record(store, letter).state == "e"
    assert lanes.published == [message.message_id]
    assert store.counters()["accepted"] == 2


@pytest.mark.parametrize("keys", [None, OTHER], ids=["unsigned", "of an unknown key"])
def test_released_bytes_that_do_not_verify_become_the_same_dead_letter_again(
    store: Store, lanes: Lanes, keys: str | None
) -> None:
    letter, _ = released(store, sent(keys))
    sweep(store, lanes, KEYS)
    assert lanes.published == []
    assert [task for task, _, _ in store.dead_letters(9)] == [letter]
    assert record(store, letter).reason == "PayloadIntegrityError"


def test_every_copy_of_refused_bytes_makes_the_same_letter(store: Store) -> None:
    message = sent(OTHER)
    for redis_id in ("1", "2"):
        keep_refused(store, message.copy(options={"redis_message_id": redis_id}), PayloadIntegrityError("bad"))
    assert len(store.dead_letters(9)) == store.counters()["integrity_failures"] == 1
