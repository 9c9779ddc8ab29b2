"""`relier.testing`: an application's actors in its tests, with each protection, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Middleware

import relier
from relier import RelierError, TaskContext, rl_actor, task_context
from relier.errors import AdmissionRejectedError, ResultTimeout, TaskFailedError
from relier.holds import lift_actor, pause_queue, resume_queue
from relier.testing import NeverEndingError, Testing, TestingError

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

Make = Callable[..., Testing]


@pytest.fixture
def make(store_url: str) -> Make:
    return lambda *args, **options: Testing(*args, redis_url=store_url, **options)


@pytest.fixture
def tasks(make: Make) -> Iterator[Testing]:
    with make() as tasks:
        yield tasks


# -- running ----------------------------------------------------------------------------------------------------------


def test_nothing_runs_before_it_is_asked_for_and_then_everything_in_the_calling_thread(tasks: Testing) -> None:
    ran = []

    @rl_actor(store_results=True)
    def add(a: int, b: int) -> int:
        ran.append(threading.current_thread())
        return a + b

    receipt = add.push(1, b=2)
    (waiting,) = tasks.tasks
    assert (waiting.id, waiting.args, waiting.kwargs, waiting.state) == (receipt.id, (1,), {"b": 2}, "queued")
    assert receipt.status() == "queued"
    assert ran == []

    assert tasks.run() == 1

    assert receipt.result(timeout=0) == 3
    assert ran == [threading.current_thread()]
    assert tasks.tasks == []
    assert tasks.counters["completed"] == 1


def test_a_task_that_ended_is_not_taken_for_a_waiting_one(tasks: Testing) -> None:
    @rl_actor
    def nothing() -> None: ...

    receipt = nothing.push()
    assert receipt.status() == "queued"
    tasks.run()
    assert receipt.status() == "unknown"  # As with real workers: no result is kept of it.


def test_what_tasks_enqueue_runs_as_well(tasks: Testing) -> None:
    ran: list[Any] = []

    @rl_actor
    def count(n: int) -> int:
        ran.append(n)
        if n:
            count.push(n - 1)
        return n

    @rl_actor
    def told(message: dict[str, Any], result: int) -> None:
        ran.append(("told", result))

    count.send_with_options(args=(2,), on_success=told)
    (count.message(0) | told.message_with_options(args=({},))).run()  # type: ignore[no-untyped-call]

    assert tasks.run() == 6
    assert sorted(map(str, ran)) == sorted(map(str, [2, 1, 0, 0, ("told", 2), ("told", 0)]))


def test_plain_actors_and_async_ones_take_part(tasks: Testing) -> None:
    ran = []

    @dramatiq.actor
    def plain(n: int) -> None:
        ran.append((n, task_context.attempt))
        if task_context.attempt == 0:
            raise ConnectionError("again")

    @rl_actor(store_results=True)
    async def slow(ctx: TaskContext | None = None) -> str:
        await asyncio.sleep(0)
        assert ctx is not None
        return ctx.task_name

    plain.send(1)
    receipt = slow.push()
    tasks.finish()

    assert ran == [(1, 0), (1, 1)]
    assert receipt.result(timeout=0) == "slow"


def test_a_failure_for_good_is_raised_unless_it_is_not_wanted(tasks: Testing) -> None:
    @rl_actor
    def broken(text: str) -> None:
        raise TypeError(text)

    broken.push("one")
    receipt = broken.push("two")
    with pytest.raises(TypeError, match="one"):
        tasks.run()
    assert tasks.run(fail_fast=False) == 1

    assert [(letter.reason, letter.error, letter.args) for letter in tasks.dead_letters] == [
        ("TypeError", "two", ("two",)),
        ("TypeError", "one", ("one",)),
    ]
    with pytest.raises(TaskFailedError):
        receipt.result(timeout=0)


def test_failures_can_be_expected_in_the_whole_test(make: Make) -> None:
    with make(fail_fast=False) as tasks:

        @rl_actor
        def broken() -> None:
            raise TypeError

        broken.push()
        assert tasks.run() == 1
        with pytest.raises(TypeError):
            broken.push()
            tasks.run(fail_fast=True)


def test_tasks_without_end_are_noticed(tasks: Testing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relier.testing.helper.MOST_RUNS", 20)

    @rl_actor
    def again() -> None:
        again.push()

    again.push()
    with pytest.raises(NeverEndingError, match="enqueue each other"):
        tasks.run()

    @rl_actor
    def later() -> None:
        later.send_with_options(delay=86_400_000)

    tasks.broker.flush_all()
    later.push()
    with pytest.raises(NeverEndingError, match="still something to do"):
        tasks.finish(within=3 * 86_400)


def test_a_task_cannot_run_tasks(tasks: Testing) -> None:
    @rl_actor
    def nested() -> None:
        tasks.run()

    nested.push()
    with pytest.raises(TestingError, match="let the test run them"):
        tasks.finish()
    assert issubclass(TestingError, RelierError)


# -- time -------------------------------------------------------------------------------------------------------------


def test_a_delayed_task_runs_when_its_time_has_come(tasks: Testing) -> None:
    ran = []

    @rl_actor
    def remind(who: str) -> None:
        ran.append((who, round(tasks.now - begin)))

    begin = tasks.now
    remind.send_with_options(args=("late",), delay=3_600_000)
    remind.send_with_options(args=("soon",), delay=60_000)

    assert [task.due_in for task in tasks.tasks] == [60, 3600]
    assert tasks.next_due == 60
    assert tasks.advance(59.999) == 0
    assert tasks.advance(0.001) == 1
    assert tasks.advance(86_400) == 1
    assert ran == [("soon", 60), ("late", 3600)]


def test_retries_wait_for_their_backoff_on_the_tests_clock(tasks: Testing) -> None:
    ran = []

    @rl_actor(max_retries=3, min_backoff=600_000, max_backoff=3_600_000)
    def flaky() -> None:
        ran.append(tasks.now)
        if len(ran) < 4:
            raise ConnectionError("try again")

    receipt = flaky.push()
    assert tasks.run() == 1
    (waiting,) = tasks.tasks
    assert (waiting.state, waiting.attempt, waiting.reason) == ("scheduled", 1, "ConnectionError")
    assert 0 < waiting.due_in <= 3600
    assert receipt.status() == "scheduled"

    assert tasks.finish() == 3

    assert len(ran) == 4
    assert ran == sorted(ran)
    assert tasks.counters["retries"] == 3


def test_a_key_lapses_on_the_tests_clock(tasks: Testing) -> None:
    ran = []

    @rl_actor(idempotency_key="{order}", idempotency_ttl=3600)
    def ship(order: int) -> None:
        ran.append(order)

    for _ in range(3):
        ship.push(1)
    ship.push(2)
    tasks.run()
    assert ran == [1, 2]

    tasks.advance(3599)
    ship.push(1)
    tasks.run()
    assert ran == [1, 2]

    tasks.advance(2)
    ship.push(1)
    tasks.run()
    assert ran == [1, 2, 1]


def test_a_result_and_a_limit_are_of_the_tests_clock_too(tasks: Testing) -> None:
    @rl_actor(store_results=True, result_ttl=60_000)
    def double(n: int) -> int:
        return 2 * n

    @rl_actor(admission_limit=2, admission_window=60)
    def limited() -> None: ...

    receipt = double.push(4)
    limited.push()
    limited.push()
    with pytest.raises(AdmissionRejectedError):
        limited.push()
    tasks.run()
    assert receipt.result(timeout=0) == 8

    tasks.advance(120)

    limited.push()
    assert tasks.run() == 1
    with pytest.raises(ResultTimeout):  # It is forgotten.
        receipt.result(timeout=0)


def test_a_task_grows_old_on_the_tests_clock(tasks: Testing) -> None:
    ran = []

    @rl_actor(max_age=60_000)
    def news(n: int) -> None:
        ran.append(n)

    tasks.advance(3600)
    news.push(1)
    tasks.run()
    news.send_with_options(args=(2,), delay=59_000)
    old = relier.TaskReceipt.from_id(news.send_with_options(args=(3,), delay=61_000).message_id)
    tasks.advance(120)

    assert ran == [1, 2]
    assert old.status() == "discarded"
    assert tasks.counters["discarded:max_age"] == 1


# -- protections ------------------------------------------------------------------------------------------------------


def test_a_crash_runs_the_task_again_and_its_checkpoint_is_kept(tasks: Testing) -> None:
    ran: list[tuple[int, Any]] = []

    @rl_actor(store_results=True)
    def import_rows(ctx: TaskContext | None = None) -> str:
        assert ctx is not None
        row = ctx.partial_result or 0
        ran.append((task_context.resurrection_count, row))
        if row == 0:
            ctx.set_partial_sync(7)
            tasks.crash()
        return "done"

    receipt = import_rows.push()
    assert tasks.run() == 2

    assert ran == [(0, 0), (1, 7)]
    assert receipt.result(timeout=0) == "done"


def test_a_task_that_kills_its_worker_too_often_is_a_dead_letter(tasks: Testing) -> None:
    ran = []

    @rl_actor(max_resurrections=2)
    def poison() -> None:
        ran.append(1)
        with contextlib.suppress(Exception):  # As with SIGKILL, this is no way out.
            tasks.crash()

    poison.push()
    tasks.run()

    assert len(ran) == 3
    (letter,) = tasks.dead_letters
    assert (letter.reason, letter.crashes) == ("max_resurrections_exceeded", 3)


def test_whose_worker_crashed_changes_nothing_any_more(tasks: Testing) -> None:
    """Code that catches everything goes on like a zombie; its commit is refused."""
    ran = []

    @rl_actor(store_results=True)
    def survive() -> str:
        ran.append(1)
        if len(ran) == 1:
            try:
                tasks.crash()
            except BaseException:
                return "a zombie's"
        return "the second run's"

    receipt = survive.push()
    tasks.run()

    assert receipt.result(timeout=0) == "the second run's"
    assert tasks.counters["completed"] == 1


def test_an_async_task_crashes_as_well(tasks: Testing) -> None:
    ran = []

    @rl_actor
    async def fragile() -> None:
        ran.append(1)
        await asyncio.sleep(0)
        if len(ran) == 1:
            tasks.crash()

    receipt = fragile.push()
    tasks.run()

    assert len(ran) == 2
    assert receipt.status() == "completed"
    with pytest.raises(TestingError, match="from code of a task"):
        tasks.crash()


def test_a_dead_letter_is_released_once_it_is_fixed(tasks: Testing) -> None:
    fixed = False

    @rl_actor(store_results=True)
    def bill(customer: int) -> int:
        if not fixed:
            raise AttributeError("no such column")
        return customer

    receipt = bill.push(5)
    with pytest.raises(AttributeError):
        tasks.run()
    (letter,) = tasks.dead_letters
    fixed = True
    tasks.release(letter)
    assert tasks.run() == 1

    assert receipt.result(timeout=0) == 5
    assert tasks.dead_letters == []
    with pytest.raises(TestingError, match="no dead letter"):
        tasks.release(letter)


def test_the_newest_task_of_a_job_runs(tasks: Testing) -> None:
    ran = []

    @rl_actor(job_key="report:{number}")
    def report(number: int, revision: int) -> None:
        ran.append(revision)

    receipts = [report.push(1, revision=revision) for revision in range(3)]
    tasks.run()
    assert ran == [2]
    assert [receipt.status() for receipt in receipts[:2]] == ["discarded", "discarded"]

    for revision in (3, 4):
        report.send_with_options(args=(1, revision), delay=60_000)
    assert tasks.advance(59) == 0
    tasks.advance(1)
    assert ran == [2, 4]


def test_a_hard_timeout_ends_an_async_task(tasks: Testing) -> None:
    @rl_actor(hard_timeout=0.05)
    async def hang() -> None:
        await asyncio.sleep(600)

    hang.push()
    tasks.run(fail_fast=False)

    assert [letter.reason for letter in tasks.dead_letters] == ["HardTimeoutError"]


def test_a_message_of_an_unknown_actor_waits_for_its_grace(tasks: Testing) -> None:
    @rl_actor
    def known() -> None: ...

    tasks.broker.enqueue(dramatiq.Message("default", "unknown", (), {}, {}))
    assert tasks.run() == 0
    assert [task.reason for task in tasks.tasks] == ["unknown actor"]

    tasks.finish()

    assert [letter.reason for letter in tasks.dead_letters] == ["ActorNotFound"]


def test_bytes_that_nobody_can_read_are_dead_letters(tasks: Testing) -> None:
    @rl_actor
    def known() -> None: ...

    tasks.broker.inject("default", b"\x80 no message")
    known.push()

    assert tasks.run() == 1
    assert [letter.reason for letter in tasks.dead_letters] == ["PayloadIntegrityError"]


# -- around it --------------------------------------------------------------------------------------------------------


class Noting(Middleware):
    """A middleware of an application."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def before_process_message(self, broker: dramatiq.Broker, message: Any) -> None:
        self.seen.append(message.actor_name)


def test_actors_of_an_application_take_part_and_are_given_back(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its broker is, which is neither asked nor changed."""
    noting = Noting()
    broker = StubBroker(middleware=[noting])
    monkeypatch.setattr(dramatiq.broker, "global_broker", broker)
    ran = []

    @dramatiq.actor
    def plain(n: int) -> None:
        ran.append(n)

    fn = plain.fn
    for number in range(2):
        with make() as tasks:
            plain.send(number)
            assert dramatiq.get_broker() is tasks.broker
            tasks.run()
        assert (plain.broker, plain.fn, dramatiq.get_broker()) == (broker, fn, broker)

    assert ran == [0, 1]
    assert noting.seen == ["plain", "plain"]
    assert not relier.installation.is_installed(broker)
    assert all(queue.empty() for queue in broker.queues.values())


def test_actors_of_another_broker_take_part_when_it_is_named(make: Make) -> None:
    broker = StubBroker()
    ran = []

    @dramatiq.actor(broker=broker)
    def plain() -> None:
        ran.append(1)

    with make(broker) as tasks:
        plain.send()
        tasks.run()
    assert ran == [1]


def test_a_module_that_is_imported_during_one_test_takes_part_in_the_next(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late_module.py").write_text(
        "from relier import rl_actor\nran = []\n\n@rl_actor\ndef late(n):\n    ran.append(n)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("relier.testing.rehearsal.Rehearsal._homeless", {})
    monkeypatch.setattr(dramatiq.broker, "global_broker", None)
    for number in range(3):
        with make() as tasks:
            import late_module  # type: ignore[import-not-found]

            late_module.late.push(number)
            tasks.run()
    assert late_module.ran == [0, 1, 2]


def test_tests_share_nothing_and_leave_nothing(make: Make, client: redis.Redis) -> None:
    threads = set(threading.enumerate())

    @rl_actor(broker=StubBroker())
    def elsewhere() -> None: ...

    for _ in range(2):
        with make() as tasks:

            @rl_actor(idempotent=True, admission_limit=5)
            async def once() -> None: ...

            once.push()
            once.send_with_options(delay=1000)
            assert tasks.run() == 1
            assert tasks.dead_letters == []
            assert len(tasks.tasks) == 1
            assert client.keys()
        assert client.keys() == []
    assert set(threading.enumerate()) <= threads


def test_a_test_that_fails_gives_everything_back(make: Make) -> None:
    before = dramatiq.broker.global_broker
    with pytest.raises(ZeroDivisionError), make():
        raise ZeroDivisionError
    assert dramatiq.broker.global_broker is before
    with make(), pytest.raises(TestingError, match="inside of another"):
        make().__enter__()


def test_what_cannot_be_is_said_at_once(make: Make) -> None:
    with pytest.raises(TypeError, match=r"max_resurrection\b"):
        make(max_resurrection=1)
    with pytest.raises(relier.StoreUnavailableError, match="for this test"), Testing(redis_url="redis://localhost:1"):
        raise AssertionError
    with pytest.raises(relier.StoreUnavailableError), Testing(redis_url="redis://localhost:1"):
        raise AssertionError  # Not "inside of another".


# -- what is held -----------------------------------------------------------------------------------------------------


def test_the_tasks_of_a_parked_actor_are_left_and_no_runs(tasks: Testing) -> None:
    ran: list[int] = []

    @rl_actor(park_after=3)
    def broken(n: int) -> None:
        ran.append(n)
        raise TypeError("a bug")

    for n in range(5):
        broken.push(n)
    assert tasks.run(fail_fast=False) == len(ran) == 3
    assert tasks.finish(fail_fast=False) == 0
    assert len(ran) == len(tasks.dead_letters) == 3
    assert [task.reason for task in tasks.tasks] == ["parked", "parked"]
    assert tasks.next_due is None
    tasks.advance(3600, fail_fast=False)
    assert len(tasks.tasks) == 2

    assert lift_actor(tasks.store, "broken")[0]
    assert tasks.finish(fail_fast=False) == 2
    assert sorted(ran) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("delay", [0, 60_000])
def test_the_tasks_of_a_paused_queue_are_left_and_others_run(tasks: Testing, delay: int) -> None:
    ran: list[str] = []

    @rl_actor(queue_name="low_priority")
    def report() -> None:
        ran.append("report")

    @rl_actor
    def other() -> None:
        ran.append("other")

    assert pause_queue(tasks.store, "low_priority", "a test")[0]
    report.send_with_options(delay=delay)
    other.send_with_options(delay=60_000)
    assert tasks.finish() == 1
    assert (ran, [task.actor for task in tasks.tasks], tasks.next_due) == (["other"], ["report"], None)

    assert resume_queue(tasks.store, "low_priority")[0]
    assert tasks.finish() == 1
    assert ran == ["other", "report"]
