"""A receipt tells what became of its task, waits for its result, cancels it; `from_id` does in any process."""

from __future__ import annotations

import asyncio
import json
import math
import pickle
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
from dramatiq.results import ResultFailure, Results
from dramatiq.results import ResultMissing as DramatiqsResultMissing
from dramatiq.results import ResultTimeout as DramatiqsResultTimeout
from dramatiq.results.backends import StubBackend

from relier import ResultMissing, ResultTimeout, StoreUnavailableError, TaskFailedError, TaskReceipt, rl_actor
from relier.brokers.redis import RelierRedisBroker
from relier.envelope import Stamp, stamp_of, stamped
from relier.hooks import encode_failure, has_failure_hooks, has_success_hooks
from relier.results import encoded_result
from relier.settings import Settings
from relier.store import Failure, Sending, Settled, shard_of
from relier.store.verdicts import LONGEST

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

LIMIT = 1000


class Desk:
    """A producer's broker, and a worker whose steps the test makes."""

    worker = "host:1:w1"

    def __init__(self, settings: Settings) -> None:
        self.broker = RelierRedisBroker(settings=settings)
        self.tasks = self.broker.store.tasks
        self.keeping: Any = rl_actor(lambda: None, broker=self.broker, actor_name="keeping", store_results=True)
        self.forgetful: Any = rl_actor(lambda: None, broker=self.broker, actor_name="forgetful")

        async def waiting() -> None: ...

        self.waiting: Any = rl_actor(waiting, broker=self.broker)

    def sending(self, receipt: TaskReceipt, actor: str = "keeping") -> Sending:
        shard = shard_of(receipt.id) if receipt.shard is None else receipt.shard
        return Sending(receipt.id, shard, "default", actor, b"body")

    def begin(self, receipt: TaskReceipt, actor: str = "keeping") -> int:
        claim = self.tasks.claim(self.worker, self.sending(receipt, actor), b"n", 0, slot_free=True)
        assert claim.fence, claim
        return claim.fence

    def complete(self, receipt: TaskReceipt, value: Any = None, *, ttl: int = 60_000) -> None:
        """Complete a task and settle it, so that nothing but its result is kept."""
        fence = self.begin(receipt)
        encoded, kept = encoded_result(value, ttl, LIMIT, receipt.id)
        protections = json.dumps(kept.protections()) if kept else ""
        sending = self.sending(receipt)
        assert self.tasks.commit(self.worker, sending, fence, hooks=False, result=encoded, protections=protections)
        self.settle(receipt, sending.shard, fence)
        assert self.broker.store.records([receipt.id], sending.shard) == {}

    def die(self, receipt: TaskReceipt, error: Exception) -> None:
        fence = self.begin(receipt)
        failure = Failure(False, 0.0, True, False, type(error).__name__, encode_failure(error), str(error))
        assert self.tasks.fail(self.worker, self.sending(receipt), fence, failure) == "dead"

    def discard(self, receipt: TaskReceipt, reason: str) -> None:
        fence = self.begin(receipt)
        sending = self.sending(receipt)
        assert self.tasks.discard(self.worker, sending, fence, reason, remember=60)
        self.settle(receipt, sending.shard, fence)

    def settle(self, receipt: TaskReceipt, shard: int, fence: int) -> None:
        generation = self.broker.store.runner.generation  # The store is the process's: other tests had it before.
        self.tasks.settle([Settled(receipt.id, shard, fence, True, generation)])

    def from_id(self, receipt: TaskReceipt) -> TaskReceipt:
        return TaskReceipt.from_id(receipt.id, broker=self.broker)


@pytest.fixture
def desk(settings: Settings) -> Iterator[Desk]:
    desk = Desk(settings)
    yield desk
    desk.broker.close()


def elsewhere(desk: Desk) -> dramatiq.Message[Any]:
    """Enqueue a task whose shard is not where its id says, as an idempotent one's is."""
    message = desk.keeping.message()
    shard = (shard_of(message.message_id) + 1) % 64
    stamp = Stamp(message.message_id, shard, created_ms=message.message_timestamp)
    return stamped(message, stamp)


# -- what it is -------------------------------------------------------------------------------------------------------


def test_a_receipt_can_be_pickled_and_made_from_an_id(desk: Desk) -> None:
    receipt = desk.keeping.push()
    copy = pickle.loads(pickle.dumps(receipt))
    assert copy == receipt == TaskReceipt.from_id(receipt.id)
    assert (copy.shard, copy.created_ms, copy.kept_ms) == (shard_of(receipt.id), receipt.created_ms, 3_600_000)
    with pytest.raises(ValueError, match="The task id is empty"):
        TaskReceipt.from_id("")


# -- status -----------------------------------------------------------------------------------------------------------


def test_a_task_that_no_worker_has_taken_is_queued(desk: Desk) -> None:
    for receipt in (desk.keeping.push(), desk.forgetful.push()):
        assert receipt.status() == asyncio.run(receipt.astatus()) == "queued"
        assert pickle.loads(pickle.dumps(receipt)).created_ms
        assert desk.from_id(receipt).status() == "unknown"  # Nobody knows it but its producer and the broker.


def test_a_delayed_task_is_scheduled_and_a_running_one_running(desk: Desk) -> None:
    late = desk.keeping.send_with_options(delay=60_000)
    receipt = desk.keeping.push()
    desk.begin(receipt)
    assert desk.from_id(TaskReceipt.from_id(late.message_id)).status() == "scheduled"
    assert receipt.status() == desk.from_id(receipt).status() == "running"


def test_a_task_whose_result_is_kept_stays_completed_when_its_record_is_forgotten(desk: Desk) -> None:
    receipt = desk.keeping.push()
    desk.complete(receipt, 42)
    assert receipt.status() == desk.from_id(receipt).status() == "completed"


def test_without_a_kept_result_a_forgotten_task_is_unknown_and_not_queued(desk: Desk) -> None:
    receipt = desk.forgetful.push()
    desk.complete(receipt, ttl=0)
    assert receipt.status() == desk.from_id(receipt).status() == "unknown"


def test_others_of_the_shard_do_not_make_a_keeping_task_uncertain(desk: Desk) -> None:
    receipt = desk.keeping.push()
    other = TaskReceipt("other", pushed=True, shard=receipt.shard, kept_ms=0)
    desk.complete(other, ttl=0)
    assert receipt.status() == "queued"


def test_a_result_whose_time_is_over_leaves_the_task_unknown(desk: Desk) -> None:
    receipt = desk.keeping.push()
    desk.complete(receipt)
    desk.broker.store.client.delete(f"rl:relier:{{{receipt.shard:02d}}}:res:{receipt.id}")
    old = TaskReceipt(receipt.id, True, receipt.shard, receipt.created_ms - 3_600_000, receipt.kept_ms, desk.broker)
    assert old.status() == "unknown"


def test_a_discarded_task_stays_discarded_for_as_long_as_a_result_would(desk: Desk) -> None:
    receipt = desk.keeping.push()
    desk.discard(receipt, "skipped")
    assert receipt.status() == "discarded"
    with pytest.raises(TaskFailedError, match=r"^discarded: skipped$"):
        receipt.result()


# -- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 0, "", [1, {"a": "ß\ud800"}], 1.5])
def test_a_result_is_what_the_actor_returned(desk: Desk, value: Any) -> None:
    receipt = desk.keeping.push()
    desk.complete(receipt, value)
    assert receipt.result() == desk.from_id(receipt).result() == asyncio.run(receipt.aresult()) == value


def test_a_result_is_waited_for(desk: Desk) -> None:
    receipt = desk.keeping.push()
    threading.Timer(0.2, desk.complete, (receipt, 42)).start()
    assert receipt.result(timeout=30) == 42

    second = desk.keeping.push()
    timer = threading.Timer(0.2, desk.complete, (second, 43))

    async def wait() -> Any:
        timer.start()
        return await asyncio.gather(desk.from_id(second).aresult(timeout=30), second.aresult(timeout=None))

    assert asyncio.run(wait()) == [43, 43]


def test_what_has_not_ended_in_time_is_a_timeout_that_says_where_it_stands(desk: Desk) -> None:
    receipt = desk.keeping.push()
    with pytest.raises(ResultTimeout, match="nothing is known of it"):
        receipt.result(timeout=0)
    desk.begin(receipt)
    with pytest.raises(ResultTimeout, match=r"within 0\.05 s; it is running"):
        asyncio.run(receipt.aresult(timeout=0.05))


def test_a_dead_task_raises_its_failure(desk: Desk) -> None:
    receipt = desk.keeping.push()
    desk.die(receipt, TypeError("no such luck"))
    for each in (receipt, desk.from_id(receipt)):
        with pytest.raises(TaskFailedError, match=r"^TypeError: no such luck$") as caught:
            each.result()
        assert (caught.value.reason, caught.value.message) == ("TypeError", "no such luck")


def test_an_actor_that_keeps_no_results_is_not_waited_for(desk: Desk) -> None:
    receipt = desk.forgetful.push()
    with pytest.raises(ResultMissing, match=r"keeps no results. Declare it with store_results=True"):
        receipt.result(timeout=None)
    desk.die(receipt, ValueError("bad"))
    with pytest.raises(TaskFailedError, match="ValueError: bad"):
        receipt.result(timeout=None)


def test_a_completed_task_without_a_result_says_so(desk: Desk) -> None:
    receipt = desk.keeping.push()
    fence = desk.begin(receipt)
    assert desk.tasks.commit(desk.worker, desk.sending(receipt), fence, hooks=False)
    with pytest.raises(ResultMissing, match="has completed, but no result is kept"):
        receipt.result()


def test_a_result_that_is_too_large_or_cannot_be_encoded_is_told_from_a_failure(desk: Desk) -> None:
    large, odd = desk.keeping.push(), desk.keeping.push()
    desk.complete(large, "x" * LIMIT)
    desk.complete(odd, object())
    with pytest.raises(ResultMissing, match="completed, result too large"):
        large.result()
    with pytest.raises(ResultMissing, match=r"completed, but its result cannot be encoded: TypeError: .*object"):
        odd.result()
    assert large.status() == odd.status() == "completed"


def test_a_task_is_found_wherever_it_is(desk: Desk) -> None:
    message = elsewhere(desk)
    shard = stamp_of(message).shard
    receipt = TaskReceipt(message.message_id, True, shard, message.message_timestamp, 60_000, desk.broker)
    assert desk.from_id(receipt).status() == "unknown"
    fence = desk.begin(receipt)
    assert desk.from_id(receipt).status() == "running"
    desk.tasks.hand_over(desk.worker, desk.sending(receipt), fence, "shutdown")
    assert desk.from_id(receipt).cancel() == "cancelled"
    assert receipt.status() == "discarded"


def test_a_store_that_is_away_is_named(desk: Desk) -> None:
    settings = Settings(redis_url="redis://127.0.0.1:1/0")
    receipt = TaskReceipt.from_id("t", broker=RelierRedisBroker(settings=settings))
    for ask in (receipt.status, receipt.cancel, lambda: receipt.result(timeout=0.05)):
        with pytest.raises(StoreUnavailableError, match="The store is away"):
            ask()


# -- cancel -----------------------------------------------------------------------------------------------------------


def test_a_queued_task_is_cancelled_and_never_runs(desk: Desk) -> None:
    receipt = desk.keeping.push()
    assert receipt.cancel() == asyncio.run(receipt.acancel()) == "cancelled"
    assert receipt.status() == "discarded"
    assert desk.tasks.claim(desk.worker, desk.sending(receipt), b"n", 0, slot_free=True).verdict == "settled"
    with pytest.raises(TaskFailedError, match=r"^discarded: cancelled$"):
        receipt.result()


def test_many_queued_tasks_are_cancelled_each_for_certain(desk: Desk) -> None:
    receipts = desk.forgetful.push_many(desk.forgetful.message() for _ in range(200))
    assert {receipt.cancel() for receipt in receipts} == {"cancelled"}


def test_what_may_have_run_before_is_only_marked(desk: Desk) -> None:
    receipt = desk.forgetful.push()
    desk.complete(receipt, ttl=0)
    assert receipt.cancel() == receipt.cancel() == "marked"
    assert TaskReceipt.from_id("nobody", broker=desk.broker).cancel() == "marked"


def keyed(desk: Desk) -> TaskReceipt:
    """Push an idempotent task that is not where its id says."""
    actor: Any = rl_actor(lambda number: None, broker=desk.broker, actor_name="keyed", idempotent=True)
    receipts: list[TaskReceipt] = [actor.push(number) for number in range(20)]
    return next(r for r in receipts if r.shard != shard_of(r.id))


def test_an_idempotent_task_that_waits_in_the_broker_is_cancelled_by_its_id_alone(desk: Desk) -> None:
    receipt = keyed(desk)
    by_id = desk.from_id(receipt)
    assert by_id.cancel() == by_id.cancel() == "marked"
    assert by_id.status() == receipt.status() == "discarded"

    sending = desk.sending(receipt, "keyed")
    assert desk.tasks.claim(desk.worker, sending, b"n", 0, slot_free=True).verdict == "settled"
    counters = desk.broker.store.counters()
    assert [counters[name] for name in ("accepted", "discarded", "discarded:cancelled")] == [1, 1, 1]


def test_an_idempotent_task_that_runs_is_found_by_its_id(desk: Desk) -> None:
    receipt = keyed(desk)
    desk.begin(receipt, "keyed")
    assert desk.from_id(receipt).cancel() == "running"
    assert desk.from_id(receipt).status() == "running"


def test_a_task_that_has_ended_is_not_cancelled(desk: Desk) -> None:
    kept, skipped, dead = desk.keeping.push(), desk.keeping.push(), desk.keeping.push()
    desk.complete(kept, 42)
    desk.discard(skipped, "skipped")
    desk.die(dead, ValueError("bad"))
    assert kept.cancel() == skipped.cancel() == dead.cancel() == "ended"
    assert (kept.status(), kept.result()) == ("completed", 42)
    assert (skipped.status(), dead.status()) == ("discarded", "dead")  # A dead letter is not for clients to remove.


def test_a_running_task_whose_worker_does_not_listen_runs_for_the_last_time(desk: Desk) -> None:
    receipt = desk.keeping.push()
    fence = desk.begin(receipt)
    assert receipt.cancel() == receipt.cancel() == "running"
    desk.tasks.hand_over(desk.worker, desk.sending(receipt), fence, "shutdown")
    desk.tasks.due(range(64), 10)
    assert receipt.status() == "discarded"


# -- Dramatiq's Results -----------------------------------------------------------------------------------------------


def test_dramatiqs_get_result_reads_what_the_commit_kept(desk: Desk) -> None:
    backend = desk.broker.get_results_backend()
    message = desk.keeping.send()
    with pytest.raises(DramatiqsResultMissing):
        message.get_result(backend=backend)
    with pytest.raises(DramatiqsResultTimeout):
        message.get_result(backend=backend, block=True, timeout=20)
    desk.complete(TaskReceipt.of(message, desk.broker), {"a": 1})
    assert message.get_result(backend=backend) == {"a": 1}
    backend.store_result(message, 2, 1000)
    assert message.get_result(backend=backend, block=True) == {"a": 1}
    bare: dramatiq.Message[Any] = dramatiq.Message(**{**message.asdict(), "options": {}})
    assert bare.get_result(backend=backend) == {"a": 1}


def test_dramatiqs_get_result_knows_failures_skips_and_what_is_too_large(desk: Desk) -> None:
    backend = desk.broker.get_results_backend()
    dead, skipped, old, large = (desk.keeping.send() for _ in range(4))
    of = {id(m): TaskReceipt.of(m, desk.broker) for m in (dead, skipped, old, large)}
    desk.die(of[id(dead)], TypeError("no such luck"))
    desk.discard(of[id(skipped)], "skipped")
    desk.discard(of[id(old)], "max_age")
    desk.complete(of[id(large)], "x" * LIMIT)
    with pytest.raises(ResultFailure, match=r"^actor raised TypeError: no such luck$") as caught:
        dead.get_result(backend=backend)
    assert (caught.value.orig_exc_type, caught.value.orig_exc_msg) == ("TypeError", "no such luck")
    assert skipped.get_result(backend=backend) is None
    with pytest.raises(ResultFailure, match="discarded: max_age"):
        old.get_result(backend=backend)
    with pytest.raises(DramatiqsResultMissing, match="result too large"):
        large.get_result(backend=backend, block=True)


def test_a_result_that_the_commit_keeps_is_no_hook(desk: Desk) -> None:
    """So the task costs no third round trip, and there is nothing to replay."""
    message = desk.keeping.message()
    assert not has_success_hooks(desk.broker, message)
    assert not has_failure_hooks(desk.broker, message)


def test_ones_own_results_backend_stays_a_hook(settings: Settings) -> None:
    backend: Any = StubBackend()
    broker = RelierRedisBroker(settings=settings, middleware=[Results(backend=backend)])  # type: ignore[no-untyped-call]
    keeping: Any = rl_actor(lambda: None, broker=broker, actor_name="keeping", store_results=True)
    assert broker.get_results_backend() is backend
    assert has_success_hooks(broker, keeping.message())
    assert TaskReceipt.of(keeping.message(), broker).kept_ms == 3_600_000


@pytest.mark.parametrize(
    ("options", "sent_with", "kept_ms"),
    [
        ({}, {}, 0),
        ({"store_results": True}, {}, 3_600_000),
        ({"store_results": True, "result_ttl": 5000}, {}, 5000),
        ({"store_results": True, "result_ttl": 5000}, {"result_ttl": 7000}, 7000),
        ({"store_results": True, "result_ttl": 5000}, {"result_ttl": "1 h"}, 5000),
        ({"store_results": True}, {"store_results": False}, 0),
        ({}, {"store_results": True}, 3_600_000),
        ({"idempotent": True, "result_ttl": 5000}, {}, 3_600_000),
        ({"idempotent": True, "idempotency_ttl": 7200}, {}, 7_200_000),
        ({"idempotent": True, "store_results": False}, {}, 3_600_000),
        ({"idempotent": True, "idempotency_ttl": math.inf}, {}, LONGEST * 1000),
        ({"store_results": True}, {"result_ttl": 10**30}, LONGEST * 1000),
    ],
)
def test_how_long_a_result_is_kept(
    settings: Settings, options: dict[str, Any], sent_with: dict[str, Any], kept_ms: int
) -> None:
    broker = RelierRedisBroker(settings=settings)
    actor: Any = rl_actor(lambda: None, broker=broker, actor_name="actor", **options)
    message = actor.message_with_options(**sent_with)
    assert TaskReceipt.of(broker.enqueue(message), broker).kept_ms == kept_ms


def test_the_pauses_of_a_wait_grow(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = 0.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        slept.append(seconds)

    receipt = desk.keeping.push()
    monkeypatch.setattr("relier.waiting.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr("relier.receipts.time", SimpleNamespace(sleep=sleep))
    with pytest.raises(ResultTimeout):
        receipt.result(timeout=60)
    assert sum(slept) == pytest.approx(60)
    assert slept[0] == 0.01 and max(slept) == 0.5
    assert len(slept) < 200
