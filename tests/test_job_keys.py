"""Pushes with a job key: how the key is made, and what becomes of a push whose store or broker is away."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from dramatiq import Broker, Message
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Interrupt, Middleware, MiddlewareError

from relier import JobKeyRefusedError, StoreUnavailableError, TaskReceipt, install, rl_actor
from relier.brokers.adapters import adapter_of
from relier.brokers.redis import RelierRedisBroker
from relier.envelope import stamp_of
from relier.errors import PayloadTooLargeError
from relier.installation import installation_of, store_of
from relier.integrity import Integrity
from relier.job_keys import job_of
from relier.sending import prepared
from relier.settings import Settings
from relier.store import SHARDS, Record, Sending, shard_of

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


@pytest.fixture(params=["own", "stub"])
def broker(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Broker]:
    made: Broker = RelierRedisBroker(settings=settings) if request.param == "own" else StubBroker()
    install(made, settings)
    yield made
    made.close()
    store_of(made).close()


def report(number: int, text: str = "") -> None: ...


def record(receipt: TaskReceipt, broker: Broker) -> Record:
    found = store_of(broker).record(receipt.id)
    assert found is not None
    return found


def refuse_messages(broker: Broker, error: type[BaseException] = ConnectionError) -> None:
    """Let the broker fail at whatever is about to be sent."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error("no broker")

    if isinstance(broker, RelierRedisBroker):
        broker._append = broker._append_many = fail  # type: ignore[method-assign]
    else:
        for queue in broker.queues.values():
            queue.put = fail


def test_a_key_is_that_of_its_actor_and_decides_the_shard(broker: Broker) -> None:
    by_template = rl_actor(report, broker=broker, job_key="{number}")
    by_function = rl_actor(report, broker=broker, actor_name="other", job_key=lambda number, *_: number or None)
    assert job_of(broker, by_template.message(1)) == job_of(broker, by_template.message(number=1, text="b"))
    assert job_of(broker, by_template.message(1)) not in (job_of(broker, by_template.message(2)), "")
    assert job_of(broker, by_template.message(1)) != job_of(broker, by_function.message(1))
    assert job_of(broker, by_function.message(0)) == ""
    stamp = stamp_of(prepared(broker, by_template.message(1)))
    assert stamp.job == job_of(broker, by_template.message(1))
    assert stamp.shard == shard_of(stamp.job)


def test_a_key_that_cannot_be_made_is_an_error_that_names_the_option(broker: Broker) -> None:
    actor = rl_actor(report, broker=broker, job_key=lambda number, *_: 1 / number)
    with pytest.raises(ValueError, match=r"Actor 'report': job_key failed \(ZeroDivisionError"):
        actor.push(0)


def test_a_push_takes_custody_and_its_copy_has_the_rank(broker: Broker) -> None:
    actor = rl_actor(report, broker=broker, job_key="{number}")
    first = actor.push(1)
    sent = actor.send(1)
    assert first.status() == "discarded"
    assert stamp_of(sent).rank > 0
    assert record(TaskReceipt.from_id(sent.message_id), broker).status == "queued"


def test_the_seal_of_a_message_leaves_its_rank_out(settings: Settings) -> None:
    signing = Settings(redis_url=settings.redis_url, signing_keys="k1:secret")
    broker = RelierRedisBroker(settings=signing)
    actor = rl_actor(report, broker=broker, job_key="{number}")
    arrived: Message[Any] = Message.decode(actor.send(1).encode())
    assert stamp_of(arrived).rank > 0
    assert Integrity.of(signing).examine(arrived)
    broker.close()


def test_a_receipt_never_takes_a_task_that_has_ended_for_one_that_waits(broker: Broker) -> None:
    """The store had it before it was published, so what nothing is known of has ended and was forgotten."""
    receipt = rl_actor(report, broker=broker, job_key="{number}").push(1)
    assert receipt.status() == "queued"
    store_of(broker).client.flushall()
    assert receipt.status() == "unknown"


def test_a_delayed_push_waits_in_the_store(broker: Broker) -> None:
    actor = rl_actor(report, broker=broker, job_key="{number}")
    sent = actor.send_with_options(args=(1,), delay=60_000)
    found = record(TaskReceipt.from_id(sent.message_id), broker)
    assert found.status == "scheduled"
    assert found.due_at > 0
    if isinstance(broker, StubBroker):
        assert not any(queue.qsize() for queue in broker.queues.values())
    else:
        assert broker.do_qsize("default") == 0  # type: ignore[attr-defined]


def test_what_the_broker_refuses_is_due_at_once_and_no_error(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    actor = rl_actor(report, broker=broker, job_key="{number}")
    refuse_messages(broker)
    receipts = [actor.push(1), *actor.push_many([actor.message(2), actor.message(3)])]
    shards = sorted({record.shard for record in receipts if record.shard is not None})
    _, due = store_of(broker).tasks.due(shards, 100)
    assert {one.task_id for one in due} == {receipt.id for receipt in receipts}
    assert "A push was not published; the store has the task, and publishes it." in caplog.text


def test_a_worker_is_told_once_the_newer_task_is_published(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the older one that pushes: interrupted before, it leaves the newer one to a sweeper for minutes."""
    actor, store, waiting = rl_actor(report, broker=broker, job_key="{number}"), store_of(broker), []
    older, job = actor.push(1), job_of(broker, actor.message(1))
    sending = Sending(older.id, shard_of(job), "default", "report", b"", job=job)
    assert store.tasks.claim("somebody", sending, b"nonce", 0, slot_free=True).fence

    def tell(worker: str, message: dict[str, Any]) -> bool:
        waiting.append((worker, message["task"], adapter_of(broker).depth("default")))
        return True

    monkeypatch.setattr(store.fleet, "tell", tell)
    actor.push(1)
    assert waiting == [("somebody", older.id, 2)]


@pytest.mark.parametrize("error", [Interrupt, ConnectionError])
def test_an_interrupted_push_is_due_at_once_as_well(broker: Broker, error: type[BaseException]) -> None:
    actor = rl_actor(report, broker=broker, job_key="{number}")
    refuse_messages(broker, error)
    with suppress(Interrupt):
        actor.push(1)
    (due,) = [task for shard in range(SHARDS) for task in store_of(broker).tasks.due([shard], 10)[1]]
    assert due.actor == "report"


def test_what_has_no_key_is_still_an_error_when_the_broker_refuses(broker: Broker) -> None:
    keyed = rl_actor(report, broker=broker, job_key="{number}")
    plain = rl_actor(report, broker=broker, actor_name="plain")
    refuse_messages(broker)
    with pytest.raises(ConnectionError, match="no broker"):
        keyed.push_many([keyed.message(1), plain.message(1)])


def test_a_middleware_that_refuses_an_enqueue_is_asked_before_the_store(broker: Broker) -> None:
    class Refusing(Middleware):
        def before_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
            raise MiddlewareError("not today")

    actor = rl_actor(report, broker=broker, job_key="{number}")
    broker.add_middleware(Refusing())
    with pytest.raises(MiddlewareError, match="not today"):
        actor.push(1)
    assert set(store_of(broker).live().values()) == {0}


def test_a_message_that_is_too_large_ends_nobody(broker: Broker) -> None:
    actor = rl_actor(report, broker=broker, job_key="{number}")
    first = actor.push(1)
    with pytest.raises(PayloadTooLargeError):
        actor.push(1, "x" * (installation_of(broker).settings.max_payload_bytes + 1))
    assert first.status() == "queued"


def test_a_push_within_the_enqueue_of_another_one_answers_for_itself_alone(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the custody of the inner one passes for that of the outer one, and its push returns though it is nowhere."""
    outer = rl_actor(report, broker=broker, job_key="{number}")
    inner = rl_actor(report, broker=broker, actor_name="inner", job_key="{number}")

    class Nesting(Middleware):
        def before_enqueue(self, broker: Broker, message: Any, delay: int | None) -> None:
            if message.actor_name == "report":
                inner.push(1)
                monkeypatch.setattr(store_of(broker).tasks, "push_many", away)

    broker.add_middleware(Nesting())
    with pytest.raises(StoreUnavailableError):
        outer.push(1)


def test_a_message_that_just_fits_is_published_at_once(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Its copy carries its rank as well, of which its producer was not told."""
    limit = 2000
    broker = RelierRedisBroker(settings=settings.model_copy(update={"max_payload_bytes": limit}))
    actor = rl_actor(report, broker=broker, job_key="{number}")
    refused = 0
    for length in range(limit, limit // 2, -1):
        try:
            actor.push(1, "x" * length)
            break
        except PayloadTooLargeError:
            refused += 1
    broker.close()
    assert refused
    assert "A push was not published" not in caplog.text


def test_of_many_the_refused_one_is_named_and_the_others_are_enqueued(broker: Broker) -> None:
    actor = rl_actor(report, broker=broker, job_key="{number}", on_dead_job="refuse")
    dead = actor.push(1)
    _bury(broker, dead)
    with pytest.raises(JobKeyRefusedError, match=f"rl dlq release {dead.id}") as refusal:
        actor.push_many([actor.message(1), actor.message(2)])
    assert refusal.value.dead_letter == dead.id
    again = pickle.loads(pickle.dumps(refusal.value))
    assert (str(again), again.dead_letter, again.reason) == (str(refusal.value), dead.id, "ValueError")
    assert store_of(broker).live()["due"] == 1


def test_without_the_store_a_push_fails(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = rl_actor(report, broker=broker, job_key="{number}")
    monkeypatch.setattr(store_of(broker).tasks, "push_many", away)
    with pytest.raises(StoreUnavailableError, match=r"The store is away \(ConnectionError\)"):
        actor.push(1)


def away(*args: Any, **kwargs: Any) -> None:
    raise redis.ConnectionError("gone")


def _bury(broker: Broker, receipt: TaskReceipt) -> None:
    assert receipt.shard is not None
    sending = Sending(receipt.id, receipt.shard, "default", "report", b"")
    assert store_of(broker).tasks.dead_letter(sending, "ValueError", b"")
