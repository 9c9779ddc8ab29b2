"""Actors are checked when they are declared; push, apush and push_many return receipts."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import dramatiq
import dramatiq.broker
import pytest
from dramatiq.brokers.stub import StubBroker

from relier import RelierActor, TaskContext, TaskReceipt, rl_actor
from relier.brokers.adapters import adapter_of
from relier.installation import is_installed
from relier.settings import reset_settings


@pytest.fixture
def broker() -> Iterator[StubBroker]:
    broker = StubBroker()
    broker.emit_after("process_boot")
    yield broker
    broker.close()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(dramatiq.broker, "global_broker", None)
    reset_settings()
    yield
    reset_settings()


@pytest.fixture
def public_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELIER_QUEUES", "reports")
    reset_settings()


def queued(broker: StubBroker, queue: str = "default") -> list[dramatiq.Message[Any]]:
    return [dramatiq.Message.decode(data) for data in list(broker.queues[queue].queue)]


def add(x: int, y: int = 0) -> int:
    return x + y


# Declaration


def test_an_rl_actor_is_a_dramatiq_actor_that_relier_protects(broker: StubBroker) -> None:
    actor = rl_actor(broker=broker)(add)
    assert isinstance(actor, RelierActor)
    assert isinstance(actor, dramatiq.Actor)
    assert broker.get_actor("add") is actor
    assert is_installed(broker)
    assert (actor.queue_name, actor.priority, actor.options["max_resurrections"]) == ("default", 50, 5)


def test_the_decorator_works_with_and_without_parentheses(broker: StubBroker) -> None:
    dramatiq.set_broker(broker)

    @rl_actor
    def bare(x: int) -> int:
        return x + 1

    @rl_actor()
    async def with_parentheses() -> None: ...

    assert bare(1) == 2
    assert set(broker.actors) >= {"bare", "with_parentheses"}


def test_one_decorator_declares_several_actors_under_their_own_names(broker: StubBroker) -> None:
    fast = rl_actor(queue="high_priority", broker=broker)
    names = [fast(fn).actor_name for fn in (add, print)]
    assert names == ["add", "print"]


@pytest.mark.parametrize(("queue", "priority"), [("high_priority", 0), ("default", 50), ("low_priority", 100)])
def test_a_public_queue_gives_its_priority_unless_one_is_set(broker: StubBroker, queue: str, priority: int) -> None:
    assert rl_actor(queue=queue, broker=broker)(add).priority == priority
    assert rl_actor(queue=queue, broker=broker, priority=7, actor_name="other")(add).priority == 7


@pytest.mark.usefixtures("public_reports")
def test_a_queue_of_relier_queues_is_public(broker: StubBroker) -> None:
    assert rl_actor(queue_name="reports", broker=broker)(add).queue_name == "reports"


@pytest.mark.parametrize("queue", ["typo", "", "re-queue", "relier.resurrector", "default.DQ", "default.XQ"])
def test_a_queue_that_is_not_public_is_refused_with_the_fix(broker: StubBroker, queue: str) -> None:
    with pytest.raises(ValueError, match=f"Unknown public queue '{queue}'") as caught:
        rl_actor(queue=queue, broker=broker)(add)
    assert "high_priority, default, low_priority" in str(caught.value)
    assert "RELIER_QUEUES" in str(caught.value)
    assert not broker.actors.keys() & {"add"}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_retires": 3}, "Unknown option 'max_retires' of actor 'add'; did you mean 'max_retries'?"),
        ({"quue": "default"}, "did you mean 'queue'?"),
        ({"zzz": 1}, "Unknown option 'zzz'"),
        ({"max_retries": -1}, "max_retries is a whole number from 0, not -1"),
        ({"max_resurrections": True}, "max_resurrections is a whole number from 0, not True"),
        ({"schema_version": 0}, "schema_version is a whole number from 1"),
        ({"min_backoff": 10, "max_backoff": 5}, "min_backoff must not exceed max_backoff"),
        ({"on_crash": "explode"}, "on_crash is 'retry' or 'dead', not 'explode'"),
        ({"transient": "ValueError"}, "transient takes exception classes"),
        ({"transient": KeyError, "deterministic": [KeyError]}, "KeyError is both in transient and"),
        ({"queue": "default", "queue_name": "default"}, "queue or queue_name, not both"),
        ({"store_results": True, "result_ttl": 0}, "result_ttl is a whole number from 1, not 0"),
        ({"idempotent": 1}, "idempotent is True or False, not 1"),
        ({"idempotency_key": 5}, "idempotency_key is a function of the arguments, or a template"),
        ({"idempotency_key": "sum:{c}"}, "names 'c'; its parameters are: x, y"),
        ({"idempotency_key": "sum:{a"}, "Actor 'add': idempotency_key 'sum:{a' is no template"),
        ({"admission_limit": 1, "admission_key": "{c}"}, "admission_key '{c}' names 'c'; its parameters are: x, y"),
        ({"admission_limit": 1, "admission_key": "{x"}, "Actor 'add': admission_key '{x' is no template"),
        ({"idempotency_key": "sum", "idempotent": False}, "leave idempotent=False out"),
        ({"idempotent": True, "idempotency_ttl": 0}, "idempotency_ttl is a number of seconds above 0"),
        ({"idempotent": True, "on_duplicate": "skip"}, "on_duplicate is 'wait', 'join' or 'drop', not 'skip'"),
        ({"on_duplicate": "drop"}, "on_duplicate needs idempotent=True or an idempotency_key"),
        ({"idempotent": True, "job_key": "a"}, "job_key and idempotency exclude each other"),
        (
            {"idempotency_key": "{x}", "hard_timeout": 120},
            "hard_timeout (120 s) must be < IDEMPOTENCY_INFLIGHT_TTL (120 s)",
        ),
        ({"idempotent": True, "hard_timeout": 150.5}, "RELIER_IDEMPOTENCY_INFLIGHT_TTL - 10 s, here 110 s"),
        ({"hard_timeout": 5}, "Timeout parameters are only supported for async functions."),
        ({"job_key": 5}, "job_key is a function of the arguments, or a template"),
        ({"job_key": "sum:{c}"}, "Actor 'add': job_key 'sum:{c}' names 'c'; its parameters are: x, y"),
        ({"on_superseded": "finish"}, "on_superseded needs a job_key"),
        ({"job_key": "a", "on_superseded": "wait"}, "on_superseded is 'cancel' or 'finish', not 'wait'"),
        ({"job_key": "a", "on_dead_job": "keep"}, "on_dead_job is 'supersede' or 'refuse', not 'keep'"),
    ],
)
def test_a_wrong_option_is_refused_with_its_name_and_the_fix(
    broker: StubBroker, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError) as caught:
        rl_actor(broker=broker, **options)(add)
    assert text in str(caught.value)


def test_exception_classes_and_dramatiqs_options_are_kept(broker: StubBroker) -> None:
    actor = rl_actor(broker=broker, transient=KeyError, deterministic=[OSError, EOFError], max_age=5, max_retries=None)(
        add
    )
    assert actor.options["transient"] == (KeyError,)
    assert actor.options["deterministic"] == (OSError, EOFError)
    assert (actor.options["max_age"], actor.options["max_retries"]) == (5, None)


def test_the_decorator_applied_twice_is_refused(broker: StubBroker) -> None:
    actor = rl_actor(broker=broker)(add)
    with pytest.raises(ValueError, match="'add' is an actor already"):
        rl_actor(broker=broker)(actor)
    plain = dramatiq.actor(broker=broker, actor_name="plain")(add)
    with pytest.raises(ValueError, match="'plain' is an actor already"):
        rl_actor(broker=broker)(plain)


def test_what_cannot_run_as_an_actor_is_refused(broker: StubBroker) -> None:
    def generator() -> Iterator[int]:
        yield 1

    with pytest.raises(ValueError, match="'generator' contains `yield`"):
        rl_actor(broker=broker)(generator)
    with pytest.raises(ValueError, match="rl_actor takes a function, not 'default'"):
        rl_actor("default")  # type: ignore[call-overload]


def test_class_based_actors_may_be_async(broker: StubBroker) -> None:
    dramatiq.set_broker(broker)

    class Job(dramatiq.GenericActor):
        class Meta:
            actor = rl_actor
            actor_name = "job"

        async def perform(self, ctx: TaskContext, x: int) -> tuple[str, int]:
            return ctx.task_id, x

    actor = broker.get_actor("job")
    assert isinstance(actor, RelierActor)
    assert actor.async_fn is not None
    context = TaskContext(task_id="t", task_name="job")
    assert asyncio.run(actor.async_fn(context, 5)) == ("t", 5)  # type: ignore[arg-type]


# The broker


def test_a_global_broker_that_was_set_is_used(broker: StubBroker) -> None:
    dramatiq.set_broker(broker)
    assert rl_actor(add).broker is broker


def test_without_a_broker_reliers_own_is_built_and_nothing_connects_or_starts() -> None:
    code = """
import threading, dramatiq.broker, relier, socket
def refuse(*a, **k): raise AssertionError("a connection was opened")
socket.socket.connect = refuse
@relier.rl_actor
def job(ctx): pass
from dramatiq.brokers.rabbitmq import RabbitmqBroker
assert dramatiq.broker.global_broker is job.broker
assert not isinstance(job.broker, RabbitmqBroker)
assert threading.active_count() == 1, threading.enumerate()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=200)


# Pushing


def test_push_enqueues_and_returns_the_receipt(broker: StubBroker) -> None:
    actor = rl_actor(broker=broker)(add)
    receipt = actor.push(1, y=2)
    (message,) = queued(broker)
    assert (message.actor_name, message.args, message.kwargs) == ("add", (1,), {"y": 2})
    assert receipt.id == message.message_id
    assert str(receipt) == receipt.id


def test_arguments_that_cannot_be_encoded_are_named_and_nothing_is_enqueued(broker: StubBroker) -> None:
    actor = rl_actor(broker=broker)(add)
    for push in (lambda m: actor.push(*m.args, **m.kwargs), lambda m: actor.push_many([actor.message(1), m])):
        with pytest.raises(TypeError, match=r"Actor 'add': argument 'y' cannot be encoded by JSONEncoder: .*set"):
            push(actor.message(1, y={1}))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="argument 2 cannot be encoded"):
        actor.push(1, object())  # type: ignore[arg-type]
    assert queued(broker) == []


def test_an_error_of_the_broker_is_not_taken_for_an_encoding_error(
    broker: StubBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(message: Any, *, delay: int | None = None) -> None:
        raise TypeError("the broker's own")

    actor = rl_actor(broker=broker)(add)
    monkeypatch.setattr(broker, "enqueue", refuse)
    with pytest.raises(TypeError, match="the broker's own"):
        actor.push(1)


def test_push_in_a_running_event_loop_names_apush(broker: StubBroker) -> None:
    actor = rl_actor(broker=broker)(add)

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"await add\.apush"):
            actor.push(1)
        with pytest.raises(RuntimeError, match=r"asyncio\.to_thread\(add\.push_many"):
            actor.push_many([])

    asyncio.run(main())
    assert queued(broker) == []


def test_apush_publishes_everything_on_one_other_thread(broker: StubBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    actor = rl_actor(broker=broker)(add)
    threads = set()
    enqueue = broker.enqueue

    def spy(message: dramatiq.Message[Any], *, delay: int | None = None) -> dramatiq.Message[Any]:
        threads.add(threading.get_ident())
        return enqueue(message, delay=delay)

    monkeypatch.setattr(broker, "enqueue", spy)

    async def main() -> list[TaskReceipt]:
        return await asyncio.gather(*(actor.apush(n) for n in range(20)))

    receipts = asyncio.run(main()) + asyncio.run(main())
    assert [r.id for r in receipts] == [m.message_id for m in queued(broker)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def _push_in_child(actor: RelierActor[..., Any], answers: Any) -> None:
    answers.put(asyncio.run(actor.apush(1)).id)


def test_apush_works_in_a_forked_child(broker: StubBroker) -> None:
    actor = rl_actor(broker=broker)(add)
    asyncio.run(actor.apush(0))
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    child = fork.Process(target=_push_in_child, args=(actor, answers))
    child.start()
    child.join(timeout=100)
    assert child.exitcode == 0
    assert answers.get()


def test_push_many_keeps_the_order_and_takes_an_empty_list(broker: StubBroker) -> None:
    actor = rl_actor(broker=broker)(add)
    other = rl_actor(broker=broker, actor_name="other")(add)
    messages = [actor.message(1), other.message(2), actor.message(3)]
    receipts = actor.push_many(iter(messages))
    assert [r.id for r in receipts] == [m.message_id for m in messages]
    assert [m.args for m in queued(broker)] == [(1,), (2,), (3,)]
    assert actor.push_many([]) == []


def test_push_many_takes_messages_only_and_enqueues_none_of_a_wrong_batch(broker: StubBroker) -> None:
    actor = rl_actor(broker=broker)(add)
    with pytest.raises(TypeError, match=r"add\.message\(\.\.\.\), not dict \(item 1\)"):
        actor.push_many([actor.message(1), {"x": 1}])  # type: ignore[list-item]
    assert queued(broker) == []


def test_push_many_uses_the_brokers_own_batch_operation(broker: StubBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []

    def enqueue_many(messages: Sequence[dramatiq.Message[Any]]) -> Sequence[dramatiq.Message[Any]]:
        batches.append(list(messages))
        return messages

    monkeypatch.setattr(adapter_of(broker), "enqueue_many", enqueue_many)
    actor = rl_actor(broker=broker)(add)
    receipts = actor.push_many(actor.message(n) for n in range(3))
    assert [[m.message_id for m in batch] for batch in batches] == [[r.id for r in receipts]]


def test_the_context_is_not_an_argument_of_the_message(broker: StubBroker) -> None:
    @rl_actor(broker=broker)
    def job(ctx: Any, x: int) -> tuple[Any, int]:
        return ctx.task_id, x

    job.send_with_options(args=(5,))
    assert queued(broker)[0].args == (5,)
    with pytest.raises(TypeError, match="'job' gets 'ctx' from its worker"):
        job.send_with_options(args=(5,), kwargs={"ctx": 1})
    assert job(TaskContext(task_id="t", task_name="job"), 5) == ("t", 5)
