"""What is sealed on its way to a broker, and what must not be: nothing that arrives unsigned is ever signed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dramatiq import Broker, Message, Worker, pipeline
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware
from dramatiq.worker import ConsumerThread

import relier
from relier.arrivals import mark, take_in_hand
from relier.brokers.adapters import adapter_of
from relier.brokers.redis import RelierRedisBroker
from relier.envelope import OPTION, keeping_stamps, republished, stamp_of
from relier.errors import UnsignableError
from relier.integrity import Integrity
from relier.sending import sending_of
from relier.settings import Settings
from relier.store import Due, Suspicion
from tests.third_party.sqlite_broker import SqliteBroker
from tests.waiting import wait_until

KEYS = "k1:" + 32 * "s"


class Tracing(Middleware):
    """Writes into the options at every enqueue, as some middlewares for tracing do."""

    def __init__(self) -> None:
        self.span = 0

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        self.span += 1
        message.options["trace"] = f"span {self.span}"
        message.options.setdefault("added", True)


@pytest.fixture(params=["own", "foreign"])
def broker(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str) -> Any:
    settings = Settings(redis_url=redis_url, signing_keys=KEYS)
    if request.param == "own":
        own = RelierRedisBroker(settings=settings)
        own.add_middleware(Tracing())
        own.declare_queue("default")
        return own
    foreign = SqliteBroker(str(tmp_path / "messages"))
    relier.install(foreign, settings)
    foreign.add_middleware(Tracing())
    foreign.declare_queue("default")
    return foreign


@pytest.fixture
def integrity() -> Integrity:
    return Integrity.of(Settings(signing_keys=KEYS))


def message(*args: Any, **options: Any) -> Message[Any]:
    return Message("default", "add", args, {}, options)


def received(broker: Any) -> list[Message[Any]]:
    """Return what a broker was sent, oldest first."""
    if isinstance(broker, SqliteBroker):
        with broker.cursor() as cursor:
            return [Message.decode(body) for (body,) in cursor.execute("SELECT body FROM messages ORDER BY id")]
    found: list[Message[Any]] = []
    for queue in ("default", "default.DQ"):
        ids = broker.connection.lrange(f"dramatiq:{queue}", 0, -1)
        found += [Message.decode(broker.connection.hget(f"dramatiq:{queue}.msgs", redis_id)) for redis_id in ids]
    return found


def is_signed(message: Message[Any]) -> bool:
    return "g" in message.options[OPTION]


def due(fence: int) -> Due:
    return Due("id", 0, fence, "s", Suspicion.NONE, 0, 1, "default", "add", b"")


# -- what is sealed -------------------------------------------------------------------------------------------------


def test_the_seal_covers_what_other_middlewares_add(broker: Any, integrity: Integrity) -> None:
    broker.enqueue(message(1))
    (sent,) = received(broker)
    assert sent.options["trace"] == "span 1"
    assert integrity.examine(sent)
    sent.options["trace"] = "span 2"
    with pytest.raises(relier.PayloadIntegrityError):
        integrity.examine(sent)


def test_a_copy_of_the_store_keeps_the_options_under_which_it_was_sealed(broker: Any, integrity: Integrity) -> None:
    broker.enqueue(message(1))
    (first,) = received(broker)
    adapter_of(broker).publish([republished(first, due(7), "default")])
    copy = received(broker)[-1]
    assert stamp_of(copy).fence == 7
    assert copy.options["trace"] == "span 1"
    assert integrity.examine(copy)


def test_messages_that_are_sent_together_are_sealed(broker: Any, integrity: Integrity) -> None:
    adapter_of(broker).enqueue_many([message(i) for i in range(3)])
    assert all(integrity.examine(sent) for sent in received(broker))


def test_a_message_that_was_sent_may_be_sent_again_as_a_task_of_its_own(broker: Any, integrity: Integrity) -> None:
    again = broker.enqueue(broker.enqueue(message(1)).copy(args=(2,)))
    first, second = received(broker)
    assert integrity.examine(first)
    assert integrity.examine(second)
    assert stamp_of(again).task_id == stamp_of(second).task_id != stamp_of(first).task_id


def test_what_cannot_be_signed_is_refused_at_the_push(broker: Any) -> None:
    actor: Any = relier.rl_actor(broker=broker)(_ignore)
    with pytest.raises(UnsignableError, match=r"message\['args'\]\[0\] is nan"):
        actor.push(float("nan"))
    with pytest.raises(TypeError, match="argument 1 cannot be encoded"):
        actor.push(object())
    assert received(broker) == []


def test_what_middlewares_change_in_a_consumed_message_does_not_come_into_the_store(tmp_path: Path) -> None:
    broker = SqliteBroker(str(tmp_path / "messages"))
    relier.install(broker, Settings(redis_url="redis://127.0.0.1:1/0", signing_keys=KEYS))
    broker.declare_queue("default")
    broker.enqueue(message(1))
    consumed = next(broker.consume("default"))
    assert consumed is not None
    consumed.options["changed"] = True
    kept = sending_of(broker, consumed, stamp_of(consumed), Settings()).body
    assert Integrity.of(Settings(signing_keys=KEYS)).examine(Message.decode(kept))


def test_a_later_stage_that_cannot_be_signed_becomes_a_dead_letter(redis_url: str) -> None:
    broker = RelierRedisBroker(settings=Settings(redis_url=redis_url, signing_keys=KEYS))
    first: Any = relier.rl_actor(broker=broker, actor_name="first")(lambda: float("nan"))
    then: Any = relier.rl_actor(broker=broker, actor_name="then")(_ignore)
    worker = Worker(broker, worker_threads=1, worker_timeout=100)
    worker.start()
    try:
        pipeline([first.message(), then.message()], broker=broker).run()  # type: ignore[no-untyped-call]
        ((letter, shard, _),) = wait_until(lambda: broker.store.dead_letters(9), 30, "a dead letter")
    finally:
        worker.stop()
    record = broker.store.records([letter], shard)[letter]
    assert (record.actor, record.reason) == ("then", "UnsignableError")


# -- what is not ----------------------------------------------------------------------------------------------------


def test_a_promoted_message_that_came_unsigned_stays_unsigned(broker: Any) -> None:
    """Dramatiq's consumer enqueues a delayed message anew when its time has come."""
    in_a_consumer_thread(lambda: broker.enqueue(message(1)))
    in_a_consumer_thread(lambda: broker.enqueue(unsigned()))
    assert [is_signed(sent) for sent in received(broker)] == [False, False]


def test_a_further_copy_of_an_unsigned_task_stays_unsigned(broker: Any) -> None:
    adapter_of(broker).publish([republished(message(1), due(7), "default")])
    with keeping_stamps():
        broker.enqueue(unsigned())
    assert [is_signed(sent) for sent in received(broker)] == [False, False]


@pytest.mark.parametrize("signed", [False, True])
def test_a_middleware_that_puts_off_a_message_signs_it_only_if_it_came_signed(broker: Any, signed: bool) -> None:
    for arrived in (message(1), unsigned()):
        proxy = MessageProxy(arrived)
        mark(proxy, signed)
        handled(proxy, partial(broker.enqueue, arrived.copy()))
    assert [is_signed(sent) for sent in received(broker)] == [signed, signed]


def test_other_messages_that_a_middleware_sends_meanwhile_are_signed(broker: Any) -> None:
    proxy = MessageProxy(unsigned())
    mark(proxy, False)
    handled(proxy, lambda: broker.enqueue(message(2)))
    assert [is_signed(sent) for sent in received(broker)] == [True]


def unsigned() -> Message[Any]:
    """Return a message as one arrives that was stamped by a version without signatures."""
    arrived = message(1)
    option = {"v": 1, "id": arrived.message_id, "s": 0, "t": 1}
    return Message.decode(arrived.copy(options={OPTION: option}).encode())


def handled(proxy: MessageProxy, act: Callable[[], Any]) -> None:
    """Do something on a thread that deals with a consumed message."""

    def work() -> None:
        take_in_hand(proxy)
        act()

    run(threading.Thread(target=work))


def in_a_consumer_thread(act: Callable[[], Any]) -> None:
    class Promoting(ConsumerThread):
        def __init__(self) -> None:
            threading.Thread.__init__(self)

        def run(self) -> None:
            act()

    run(Promoting())


def run(thread: threading.Thread) -> None:
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def _ignore(value: Any) -> None: ...
