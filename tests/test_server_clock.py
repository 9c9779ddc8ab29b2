"""A producer's stamps carry the server's time: never earlier, and hardly later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from dramatiq import Message

from relier.admission import admission_of
from relier.brokers.redis import RelierRedisBroker
from relier.envelope import stamp_of
from relier.purging import Purging, Selection
from relier.sending import sending_of
from relier.server_clock import ServerClock
from relier.settings import Settings
from relier.store import Verdict
from tests.servers import RedisServer
from tests.waiting import wait_until

#: How wrong (s) a producer's own clock is here.
WRONG = 3600.0


@pytest.fixture(params=[-WRONG, WRONG], ids=["behind", "ahead"])
def wrong_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + request.param)


@pytest.fixture
def broker(server: RedisServer) -> Iterator[RelierRedisBroker]:
    server.empty()
    broker = RelierRedisBroker(settings=Settings(redis_url=server.url))
    broker.declare_queue("default")
    with closing(broker):
        yield broker


def server_ms(client: redis.Redis) -> float:
    seconds, micros = client.time()
    return seconds * 1000 + micros / 1000


def knows_the_time(broker: RelierRedisBroker) -> bool:
    admission = admission_of(broker)
    return admission is not None and admission.clock._heard is not None


def test_what_is_enqueued_carries_the_time_of_the_server(
    broker: RelierRedisBroker, client: redis.Redis, wrong_clock: None
) -> None:
    message: Message[None] = Message("default", "act", (), {}, {})
    wait_until(lambda: broker.enqueue(message) and knows_the_time(broker), 30, "an answer of the store")
    for _ in range(20):
        before = server_ms(client)
        created = stamp_of(broker.enqueue(message)).created_ms
        after = server_ms(client)

        assert before <= created <= after + WRONG * 500


def test_a_message_that_was_made_long_ago_is_as_new_as_its_enqueue(
    broker: RelierRedisBroker, client: redis.Redis
) -> None:
    made: Message[None] = Message("default", "act", (), {}, {}, message_timestamp=1)

    wait_until(lambda: broker.enqueue(made) and knows_the_time(broker), 30, "an answer of the store")
    before = server_ms(client)

    assert stamp_of(broker.enqueue(made)).created_ms >= before


def test_until_the_store_has_answered_it_is_the_clock_of_the_host() -> None:
    clock = ServerClock()

    before = time.time() * 1000

    assert before <= clock.now_ms() <= time.time() * 1000 + 1


def test_an_answer_that_took_long_does_not_replace_one_that_came_at_once() -> None:
    clock = ServerClock()
    clock.heard(1000.0, time.monotonic())
    clock.heard(5000.0, time.monotonic() - 10)

    assert clock.now_ms() < 2_000_000


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no clock that counts a suspension")
def test_time_goes_on_while_the_machine_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is pushed when it wakes up is older than a purge from meanwhile, and never runs."""
    clock = ServerClock()
    clock.heard(1000.0, time.monotonic())
    right = time.clock_gettime
    monkeypatch.setattr(time, "clock_gettime", lambda kind: right(kind) + 3600 * (kind == time.CLOCK_BOOTTIME))

    assert clock.now_ms() >= 4_600_000


def test_a_vague_time_is_better_than_none() -> None:
    clock = ServerClock()
    clock.heard(1000.0, time.monotonic() - 10)

    assert 1_010_000 <= clock.now_ms() < 2_000_000


def test_a_purge_judges_what_producers_with_wrong_clocks_sent_by_the_server_s_time(
    broker: RelierRedisBroker, wrong_clock: None
) -> None:
    def claimed(message: Message[None]) -> Verdict:
        sending = sending_of(broker, message, stamp_of(message), broker.settings)
        return broker.store.tasks.claim("w1", sending, b"n", 0, slot_free=True).verdict

    wait_until(lambda: broker.enqueue(blank()) and knows_the_time(broker), 30, "an answer of the store")
    fetched, waiting = broker.enqueue(blank()), broker.enqueue(blank())

    Purging(broker.store, broker, broker.settings, Selection(), "me").run(["default"])

    assert (claimed(fetched), claimed(waiting)) == (Verdict.SETTLED, Verdict.SETTLED)
    assert claimed(broker.enqueue(blank())) is Verdict.GRANTED


def blank() -> Message[None]:
    return Message("default", "act", (), {}, {})
