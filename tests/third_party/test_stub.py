"""`StubBroker` with Relier in an application's unit tests: as with Dramatiq alone, in one process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq import Broker, Message, Worker
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import QueueJoinTimeout
from dramatiq.middleware import Middleware, SkipMessage
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend

import relier
from relier import rl_actor, task_context
from relier.installation import installation_of
from relier.settings import Settings
from relier.store import Store
from tests.waiting import wait_until

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


class PutOff(Middleware):
    """Puts each message off once, as a throttle of an application may do."""

    def __init__(self) -> None:
        self.put_off = 0

    def before_process_message(self, broker: Broker, message: Any) -> None:
        if not message.options.get("put_off"):
            self.put_off += 1
            broker.enqueue(message.copy(options={"put_off": True}), delay=20)
            raise SkipMessage("later")


@pytest.fixture
def broker(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> StubBroker:
    broker = StubBroker()
    relier.install(broker, settings)
    monkeypatch.setattr(dramatiq.broker, "global_broker", broker)
    return broker


@pytest.fixture
def store(broker: StubBroker) -> Store:
    return installation_of(broker).store


@pytest.fixture
def worker(broker: StubBroker) -> Iterator[Worker]:
    worker = Worker(broker, worker_timeout=100, worker_threads=2)
    worker.start()
    yield worker
    worker.stop()


def test_tasks_run_with_retries_results_and_delays(broker: StubBroker, worker: Worker) -> None:
    ran = []

    @rl_actor(broker=broker, max_retries=2, min_backoff=1, max_backoff=10)
    def flaky(failures: int) -> None:
        ran.append((failures, task_context.attempt))
        if task_context.attempt < failures:
            raise ConnectionError("not yet")

    receipts = [flaky.push(0), flaky.push(2)]
    late = flaky.send_with_options(args=(1,), delay=50)
    broker.join("default", timeout=60_000)

    assert sorted(ran) == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert [receipt.status() for receipt in receipts] == ["completed", "completed"]
    assert relier.TaskReceipt.from_id(late.message_id).status() == "completed"


@pytest.mark.parametrize("own_backend", [False, True])
def test_receipts_read_results_with_and_without_dramatiqs_results(
    broker: StubBroker, worker: Worker, own_backend: bool
) -> None:
    backend: Any = StubBackend()
    if own_backend:
        broker.add_middleware(Results(backend=backend))  # type: ignore[no-untyped-call]

    @rl_actor(broker=broker, store_results=True)
    def double(x: int) -> int:
        return 2 * x

    @dramatiq.actor(broker=broker, store_results=True)
    async def triple(x: int) -> int:
        return 3 * x

    doubled, tripled = double.push(4), triple.send(5)

    assert doubled.result(timeout=60) == 8
    assert relier.TaskReceipt.from_id(tripled.message_id).result(timeout=60) == 15
    if own_backend:
        assert tripled.get_result(backend=backend, block=True, timeout=60_000) == 15
    broker.join("default", timeout=60_000)


def test_join_raises_what_failed_for_good_and_flush_all_forgets_it(
    broker: StubBroker, worker: Worker, store: Store
) -> None:
    @rl_actor(broker=broker)
    def broken() -> None:
        raise TypeError("broken")

    receipt = broken.push()
    with pytest.raises(TypeError, match="broken"):
        broker.join("default", timeout=60_000)
    assert receipt.status() == "dead"
    broker.join("default", timeout=60_000, fail_fast=False)

    broker.flush_all()

    broker.join("default", timeout=60_000)
    assert set(store.live().values()) == {0}
    assert store.counters() == {}
    assert len(store.fleet.workers()) == 1


def test_join_waits_for_a_retry_no_longer_than_it_may(broker: StubBroker, worker: Worker) -> None:
    @rl_actor(broker=broker, max_retries=1, min_backoff=3_600_000)
    def hopeless() -> None:
        raise ConnectionError("away")

    hopeless.push()
    with pytest.raises(QueueJoinTimeout):
        broker.join("default", timeout=500)
    broker.flush_all()
    broker.join("default", timeout=60_000)


def test_an_unknown_actor_is_raised_as_well(broker: StubBroker, worker: Worker) -> None:
    @rl_actor(broker=broker)
    def known() -> None: ...

    broker.enqueue(Message("default", "unknown", (), {}, {}))
    with pytest.raises(dramatiq.errors.ActorNotFound):
        broker.join("default", timeout=60_000)


def test_a_middleware_may_put_a_task_off(broker: StubBroker, store: Store) -> None:
    """It skips its copy, which ends that task, and enqueues the message again: a task of its own, which runs."""
    ran = []

    @rl_actor(broker=broker)
    def noted(n: int) -> None:
        ran.append((n, task_context.task_id))

    throttle = PutOff()
    broker.add_middleware(throttle)
    worker = Worker(broker, worker_timeout=100)
    worker.start()
    try:
        receipt = noted.push(1)
        broker.join("default", timeout=60_000)
    finally:
        worker.stop()

    assert throttle.put_off == len(ran) == 1
    assert ran[0][1].startswith(f"{receipt.id}~")
    assert receipt.status() == "discarded"


def test_brokers_of_one_process_leave_each_other_alone(broker: StubBroker, settings: Settings) -> None:
    """As do those of several, which share the embedded server of a developer."""
    other = StubBroker()
    relier.install(other, settings)
    ran: list[str] = []
    for name, each in (("one", broker), ("other", other)):

        def actor(mine: str = name) -> None:
            ran.append(mine)
            if task_context.attempt == 0:
                raise ConnectionError("again")

        rl_actor(actor, broker=each, actor_name="actor", min_backoff=1, max_backoff=10).push()
    worker = Worker(broker, worker_timeout=100)
    worker.start()
    try:
        broker.join("default", timeout=60_000)
        deadline = time.monotonic() + 0.5  # Sweeps pass; the other's task must not come along.
        while time.monotonic() < deadline:
            assert ran == ["one", "one"]
    finally:
        worker.stop()
    other.flush_all()


class Speechless(Exception):
    """An exception whose own text fails."""

    def __str__(self) -> str:
        raise AttributeError("nothing to say")


@pytest.mark.usefixtures("worker")
def test_an_exception_that_cannot_tell_its_text_is_a_failure_like_any_other(broker: StubBroker, store: Store) -> None:
    ran, told = [], []

    @rl_actor(broker=broker)
    def hear(message: dict[str, Any], failure: dict[str, str]) -> None:
        told.append(failure["type"])

    @rl_actor(broker=broker, max_retries=0, on_failure="hear")
    def fail() -> None:
        ran.append(1)
        raise Speechless

    receipt = fail.push()
    wait_until(lambda: told, 30, "the callback")

    assert receipt.status() == "dead"
    assert (ran, told) == ([1], ["Speechless"])
    assert store.counters().get("handed_over", 0) == 0


@pytest.mark.usefixtures("worker")
def test_the_text_of_a_failure_may_be_no_utf_8(broker: StubBroker) -> None:
    ran = []

    @rl_actor(broker=broker, max_retries=0)
    def fail() -> None:
        ran.append(1)
        raise OSError("cannot read b\udcff")

    receipt = fail.push()
    wait_until(lambda: receipt.status() == "dead", 30, "the dead letter")
    assert ran == [1]


@pytest.mark.usefixtures("worker")
def test_a_failure_that_cannot_be_judged_makes_a_dead_letter(
    broker: StubBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("no judge")

    monkeypatch.setattr("relier.closing.decide", refuse)

    @rl_actor(broker=broker)
    def fail() -> None:
        raise ConnectionError("a transient one")

    receipt = fail.push()
    wait_until(lambda: receipt.status() == "dead", 30, "the dead letter")
