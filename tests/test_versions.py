"""Payload versions in a worker: what the actor sees, what a failing migration means, what follow-ups carry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq import Message, Worker, group, pipeline
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import SkipMessage

import relier
from relier import SchemaRegistry, TaskContext, rl_actor, task_context
from relier.envelope import keeping_stamps, stamp_first_hand, version_of
from relier.installation import installation_of
from relier.schema import Migrations
from relier.settings import Settings
from relier.store import Store
from tests.waiting import wait_until

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


@pytest.fixture(autouse=True)
def migrations(monkeypatch: pytest.MonkeyPatch) -> Migrations:
    """No migrations but those of the test."""
    fresh = Migrations()
    monkeypatch.setattr("relier.schema.migrations", fresh)
    monkeypatch.setattr("relier.execution.migrations", fresh)
    return fresh


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


def send(broker: StubBroker, version: int, *args: Any, **kwargs: Any) -> str:
    """Send a task of `act` as a producer with this version of it does; returns its id."""
    message: Message[Any] = Message("default", "act", args, kwargs, {})
    with keeping_stamps():
        broker.enqueue(stamp_first_hand(message, version))
    return message.message_id


def test_actors_of_every_kind_get_migrated_arguments_and_so_does_their_context(
    broker: StubBroker, worker: Worker
) -> None:
    seen: list[Any] = []
    for name in ("plain", "sync", "coroutine"):
        SchemaRegistry.register_migration(name, 1)(lambda n: {"number": n})
        SchemaRegistry.register_migration(name, 2)(lambda number: ([], {"numbers": [number]}))

    @dramatiq.actor(broker=broker, actor_name="plain", schema_version=3)
    def plain(numbers: list[int]) -> None:
        seen.append((numbers, task_context.args, task_context.kwargs))

    @rl_actor(broker=broker, actor_name="sync", schema_version=3)
    def sync(ctx: TaskContext, numbers: list[int]) -> None:
        seen.append((numbers, ctx.args, ctx.kwargs))

    @rl_actor(broker=broker, actor_name="coroutine", schema_version=3)
    async def coroutine(numbers: list[int], *, ctx: TaskContext) -> None:
        seen.append((numbers, ctx.args, ctx.kwargs))

    for name in ("plain", "sync", "coroutine"):
        for version, kwargs in ((1, {"n": 7}), (2, {"number": 7}), (3, {"numbers": [7]})):
            message: Message[Any] = Message("default", name, (), kwargs, {})
            with keeping_stamps():
                broker.enqueue(stamp_first_hand(message, version))
    broker.join("default", timeout=60_000)
    assert seen == [([7], (), {"numbers": [7]})] * 9


def test_every_run_migrates_what_was_sent_afresh(broker: StubBroker, worker: Worker, store: Store) -> None:
    runs: list[list[int]] = []

    @SchemaRegistry.register_migration("act", 1)
    def from_1(items: list[int]) -> dict[str, Any]:
        items.append(1)
        return {"items": items}

    @rl_actor(broker=broker, schema_version=2, max_retries=3, min_backoff=1, max_backoff=10)
    def act(items: list[int]) -> None:
        runs.append(list(items))
        items.append(2)
        if len(runs) < 3:
            raise ConnectionError("again")

    task = send(broker, 1, [0])
    broker.join("default", timeout=60_000)
    assert runs == [[0, 1]] * 3
    assert store.status(task) == "completed"


def test_a_failing_migration_makes_a_dead_letter_at_once_whatever_the_actor_says_of_failures(
    broker: StubBroker, worker: Worker, store: Store
) -> None:
    told: list[Any] = []

    @rl_actor(broker=broker)
    def on_failure(message: dict[str, Any], error: dict[str, Any]) -> None:
        told.append((message["args"], error["type"]))

    @SchemaRegistry.register_migration("act", 1)
    def from_1(n: int) -> dict[str, Any]:
        raise ConnectionError("a migration asks nobody")

    @rl_actor(
        broker=broker, schema_version=2, max_retries=9, min_backoff=1, transient=Exception, on_failure="on_failure"
    )
    def act(n: int) -> None:
        raise AssertionError("it must not run")

    task, gap = send(broker, 1, 5), send(broker, 1, 6, 7)
    broker.join("default", timeout=60_000, fail_fast=False)

    for each, text in ((task, "ConnectionError: a migration asks nobody"), (gap, "TypeError: ")):
        letter = store.record(each)
        assert letter is not None
        assert (letter.outcome, letter.reason, len(letter.runs)) == ("dead", "SchemaMigrationError", 1)
        assert f"The migration of 'act' from payload version 1 failed: {text}" in letter.result.decode()
    wait_until(lambda: len(told) == 2, what="callbacks")
    assert sorted(told) == [([5], "SchemaMigrationError"), ([6, 7], "SchemaMigrationError")]


def test_a_dead_letter_runs_after_its_migration_was_mended(
    broker: StubBroker, worker: Worker, store: Store, migrations: Migrations
) -> None:
    done: list[int] = []

    @rl_actor(broker=broker, schema_version=2)
    def act(number: int) -> None:
        done.append(number)

    task = send(broker, 1, 5)
    broker.join("default", timeout=60_000, fail_fast=False)
    letter = store.record(task)
    assert letter is not None
    assert letter.reason == "SchemaMigrationError"
    assert "No migration leads 'act' from payload version 1 to 2" in letter.result.decode()

    migrations.add("act", 1, lambda n: {"number": n})
    assert store.tasks.hold(task, "release", "a test")[0] == "released"
    wait_until(lambda: done == [5], what="its run")


def test_a_migration_may_discard_what_is_not_wanted_any_more(broker: StubBroker, worker: Worker, store: Store) -> None:
    @SchemaRegistry.register_migration("act", 1)
    def from_1() -> dict[str, Any]:
        raise SkipMessage("not any more")

    @rl_actor(broker=broker, schema_version=2)
    def act() -> None: ...

    send(broker, 1)
    broker.join("default", timeout=60_000)
    assert store.counters()["discarded:skipped"] == 1


def test_a_newer_payload_is_held_before_anything_of_it_is_counted(
    broker: StubBroker, worker: Worker, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    @rl_actor(broker=broker, schema_version=2)
    def act() -> None:
        raise AssertionError("it must not run")

    task = send(broker, 3)
    wait_until(lambda: (r := store.record(task)) is not None and r.reason == "newer version", what="its being held")
    record = store.record(task)
    assert record is not None
    assert (record.attempt, record.crashes, record.runs, record.granted_at) == (0, 0, (), 0)
    assert "Received a task of 'act' that is newer than this worker's code." in caplog.messages


def test_follow_ups_have_the_versions_of_whoever_sent_the_first_task(broker: StubBroker, worker: Worker) -> None:
    """Not those of the worker that enqueues them, which may be older or newer than the sender."""
    seen: list[tuple[str, int]] = []

    @rl_actor(broker=broker, schema_version=2)
    def first() -> None: ...

    def version(name: str) -> None:
        message = dramatiq.middleware.CurrentMessage.get_current_message()
        seen.append((name, version_of(message)))

    @rl_actor(broker=broker, schema_version=2)
    def second(*args: Any) -> None:
        version("second")

    @rl_actor(broker=broker)
    def third(*args: Any) -> None:
        version("third")

    SchemaRegistry.register_migration("second", 2)(lambda *args: {})
    started = pipeline([first.message(), second.message(), third.message(), second.message()], broker=broker)
    members = group([first.message()], broker=broker)  # type: ignore[no-untyped-call]
    members.add_completion_callback(second.message())  # type: ignore[no-untyped-call]
    messages = [started.messages[0]]
    broker.flush_all()
    second.options["schema_version"] = 2
    for message in messages:
        sent = broker.enqueue(message)
        assert sent.options["pipe_target"]["options"]["relier"] == {"p": 2}
    members.run()  # type: ignore[no-untyped-call]
    second.options["schema_version"] = 3  # As if the worker had newer code than the sender.
    broker.join("default", timeout=60_000)
    wait_until(lambda: len(seen) == 4, what="all follow-ups")
    assert sorted(seen) == [("second", 2), ("second", 2), ("second", 2), ("third", 1)]


def test_migrations_that_can_never_run_are_reported_when_a_worker_starts(
    broker: StubBroker, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    @rl_actor(broker=broker)
    def act() -> None: ...

    SchemaRegistry.register_migration("act", 1)(dict)
    SchemaRegistry.register_migration("gone", 1)(dict)
    request.getfixturevalue("worker")
    reports = [record for record in caplog.records if record.message == "A migration can never run."]
    assert [(record.levelname, record.__dict__["actor"], record.__dict__["from_version"]) for record in reports] == [
        ("ERROR", "act", 1),
        ("ERROR", "gone", 1),
    ]
