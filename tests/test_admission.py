"""Admission as a producer meets it: what is counted, what is refused, and what happens while the store is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq import Broker, group, pipeline

from benchmarks.admission import Hammer, most_in_a_window, noted
from relier import AdmissionRejectedError, TaskContext, install, rl_actor
from relier.admission import admission_of
from relier.admission_limits import check_options
from relier.brokers.redis import RelierRedisBroker
from relier.settings import Settings
from tests import processes
from tests.conftest import PrivateServers
from tests.servers import RedisServer
from tests.waiting import wait_until

#: A window that no test outlasts.
LONG = 3600.0

Brokers = Callable[..., RelierRedisBroker]


@pytest.fixture
def brokers(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Brokers]:
    """Call with a limit, and settings. A busy machine must not look like a store that is away."""
    monkeypatch.setattr("relier.admission.PATIENCE_SHARED", 60.0)
    made: list[RelierRedisBroker] = []

    def make(limit: int = 10**6, **options: Any) -> RelierRedisBroker:
        options = {"redis_url": store_url, "admission_limit": limit, "admission_window": LONG, **options}
        made.append(RelierRedisBroker(settings=Settings(**options)))
        return made[-1]

    yield make
    for broker in made:
        broker.close()
        broker.store.close()


def work(*args: Any, **kwargs: Any) -> None: ...


def used(broker: Broker, scope: str = "global") -> int:
    """Return how many tasks are counted, but for permits that this process holds."""
    admission = admission_of(broker)
    assert admission is not None
    held = {limit.scope: meter.permits for limit, meter in admission._meters.items()}
    usages = {usage.scope: usage.used for usage in broker.store.admissions.usages()}  # type: ignore[attr-defined]
    return int(usages.get(scope, 0) - held.get(scope, 0))


def waiting(broker: RelierRedisBroker, queue: str = "default") -> int:
    return int(broker.do_qsize(queue))


# -- what is counted ------------------------------------------------------------------------------------------------


async def _apush(actor: Any) -> None:
    await actor.apush(1)


def _run(kind: Any, actor: Any) -> None:
    kind([actor.message(1), actor.message(2)], broker=actor.broker).run()


ENQUEUES: dict[str, tuple[Callable[[Any], Any], int]] = {
    "push": (lambda actor: actor.push(1), 1),
    "apush": (lambda actor: asyncio.run(_apush(actor)), 1),
    "push_many": (lambda actor: actor.push_many([actor.message(i) for i in range(5)]), 5),
    "send": (lambda actor: actor.send(1), 1),
    "a delay": (lambda actor: actor.send_with_options(args=(1,), delay=60_000), 1),
    "a pipeline": (lambda actor: _run(pipeline, actor), 1),
    "a group": (lambda actor: _run(group, actor), 2),
    "enqueue": (lambda actor: actor.broker.enqueue(actor.message(1)), 1),
    "the same message twice": (lambda actor: [actor.broker.enqueue(m) for m in [actor.message(1)] * 2], 2),
}


@pytest.mark.parametrize("how", ENQUEUES)
def test_every_way_of_enqueuing_counts_each_task_once(how: str, brokers: Brokers) -> None:
    broker = brokers()
    enqueue, tasks = ENQUEUES[how]
    enqueue(rl_actor(broker=broker)(work))
    assert used(broker) == tasks


def test_actors_of_dramatiq_are_counted(brokers: Brokers) -> None:
    broker = brokers(1)
    actor = dramatiq.actor(broker=broker)(work)
    actor.send()
    with pytest.raises(AdmissionRejectedError):
        actor.send()


def test_copies_and_internal_messages_are_not_counted(brokers: Brokers) -> None:
    from relier.envelope import keeping_stamps

    broker = brokers(1)
    message = rl_actor(broker=broker)(work).send()
    with keeping_stamps():
        broker.enqueue(message)
    broker.publish_many([message])
    broker.enqueue(message.copy(queue_name="relier.resurrector.1", options={"relier": None}))
    assert used(broker) == 1


def test_continuations_are_counted_and_never_refused(brokers: Brokers) -> None:
    broker = brokers(2)
    actor, admission = rl_actor(broker=broker)(work), admission_of(broker)
    assert admission is not None
    for _ in range(5):
        admission.note(actor.message())
    with pytest.raises(AdmissionRejectedError):
        actor.push()
    wait_until(lambda: _asked_again(actor, broker) >= 5, 30, "the continuations' count")


def _asked_again(actor: Any, broker: RelierRedisBroker) -> int:
    """Return the count after a request: what was let through is told with the next one."""
    with pytest.raises(AdmissionRejectedError):
        actor.push()
    return used(broker)


# -- what is refused ------------------------------------------------------------------------------------------------


def test_a_rejected_push_enqueues_nothing_and_says_when_to_come_again(brokers: Brokers) -> None:
    broker = brokers(3)
    actor = rl_actor(broker=broker)(work)
    for _ in range(3):
        actor.push()
    with pytest.raises(AdmissionRejectedError, match="3 tasks in 3600 s are the limit") as caught:
        actor.push()
    assert 0 < caught.value.retry_after <= 1.1 * LONG
    assert isinstance(caught.value, dramatiq.middleware.MiddlewareError)
    assert pickle.loads(pickle.dumps(caught.value)).retry_after == caught.value.retry_after
    assert waiting(broker) == 3


def test_a_refused_producer_is_let_in_when_the_window_has_passed(brokers: Brokers) -> None:
    broker = brokers(3, admission_window=0.2)
    actor = rl_actor(broker=broker)(work)
    admitted = []

    def push() -> bool:
        with contextlib.suppress(AdmissionRejectedError):
            admitted.append(actor.push())
        return len(admitted) >= 10

    wait_until(push, 60, "ten admitted tasks")


def test_a_batch_is_admitted_as_a_whole_or_not_at_all(brokers: Brokers) -> None:
    broker = brokers(10)
    actor = rl_actor(broker=broker)(work)
    actor.push_many([actor.message(i) for i in range(6)])
    with pytest.raises(AdmissionRejectedError):
        actor.push_many([actor.message(i) for i in range(5)])
    assert waiting(broker) == used(broker) == 6
    actor.push_many([actor.message(i) for i in range(4)])
    with pytest.raises(AdmissionRejectedError, match="11 tasks at once can never be admitted"):
        actor.push_many([actor.message(i) for i in range(11)])
    assert waiting(broker) == 10


def test_two_processes_share_a_limit(brokers: Brokers) -> None:
    first, second = (rl_actor(broker=brokers(4))(work) for _ in range(2))
    for _ in range(2):
        first.push()
        second.push()
    for actor in (first, second):
        with pytest.raises(AdmissionRejectedError):
            actor.push()


def test_an_actor_has_a_limit_of_its_own(brokers: Brokers) -> None:
    broker = brokers()
    limited = rl_actor(broker=broker, actor_name="limited", admission_limit=2)(work)
    free = rl_actor(broker=broker, actor_name="free")(work)
    limited.push()
    limited.push()
    with pytest.raises(AdmissionRejectedError, match="of actor 'limited'"):
        limited.push()
    free.push()
    assert (used(broker, "actor:limited"), used(broker)) == (2, 3), "what is refused takes no permit of another limit"


@pytest.mark.parametrize("key", ["{user}/{kind}", lambda user, kind="a": f"{user}/{kind}"])
def test_a_limit_for_each_key(key: Any, brokers: Brokers) -> None:
    broker = brokers()

    @rl_actor(broker=broker, admission_limit=1, admission_key=key)
    def limited(user: str, kind: str = "a") -> None: ...

    limited.push("ann")
    limited.push("ann", "b")
    limited.push(user="bob")
    for arguments in (("ann",), ("ann", "a"), ("bob", "a")):
        with pytest.raises(AdmissionRejectedError, match=f"of key '{arguments[0]}/a' of actor 'limited'"):
            limited.push(*arguments)
    assert used(broker, "key:limited:ann/a") == 1


def test_a_key_that_cannot_be_made_is_told(brokers: Brokers) -> None:
    broker = brokers()
    actor = rl_actor(broker=broker, admission_limit=1, admission_key="{x.nothing}")(work)
    with pytest.raises(ValueError, match="Actor 'work': admission_key failed"):
        actor.push(1)
    assert waiting(broker) == 0


def test_the_context_is_no_part_of_a_key(brokers: Brokers) -> None:
    broker = brokers()

    @rl_actor(broker=broker, admission_limit=1, admission_key="{user}")
    def limited(ctx: TaskContext, user: str) -> None: ...

    limited.push("ann")  # type: ignore[call-arg, arg-type]
    assert used(broker, "key:limited:ann") == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"admission_window": 1.0}, "admission_window needs admission_limit"),
        ({"admission_key": "{x}"}, "admission_key needs admission_limit"),
        ({"admission_limit": 0}, "whole number from 1"),
        ({"admission_limit": True}, "whole number from 1"),
        ({"admission_limit": 1, "admission_window": 0}, "from 0.1 to 86400"),
        ({"admission_limit": 1, "admission_key": 7}, "a template or a function"),
    ],
)
def test_options_that_could_not_work_are_refused(options: dict[str, Any], text: str, brokers: Brokers) -> None:
    with pytest.raises(ValueError, match=text):
        rl_actor(broker=brokers(), **options)(work)
    with pytest.raises(ValueError, match=text):
        check_options("work", options)


def test_a_forked_child_does_not_use_its_parents_permits(brokers: Brokers) -> None:
    broker = brokers(1000)
    actor, admission = rl_actor(broker=broker)(work), admission_of(broker)
    assert admission is not None
    wait_until(lambda: actor.push() and admission._global.permits > 0, 30, "permits in stock")
    child = os.fork()
    if not child:
        os._exit(int(admission._global.permits > 0))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert admission._global.permits > 0


# -- while the store is away ----------------------------------------------------------------------------------------

SENTENCE = (
    " — failing open, task will proceed. Investigate if this recurs: sustained failure means rate limiting is inactive."
)


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "Admission control" in record.getMessage()]


def test_a_store_that_refuses_lets_everything_through(caplog: pytest.LogCaptureFixture) -> None:
    from dramatiq.brokers.stub import StubBroker

    broker = StubBroker()
    install(broker, Settings(redis_url="redis://127.0.0.1:1/0", admission_limit=1))
    actor = rl_actor(broker=broker)(work)
    for _ in range(50):
        actor.push()
    (line,) = _warnings(caplog)
    assert re.fullmatch(r"Admission control check failed \((Connection|Timeout)Error: .+\)" + re.escape(SENTENCE), line)
    assert {r.levelno for r in caplog.records if r.getMessage() == line} == {logging.WARNING}


def test_a_store_that_hangs_lets_everything_through_and_counts_it_later(
    brokers: Brokers, store_url: str, private_server: PrivateServers, caplog: pytest.LogCaptureFixture
) -> None:
    store = private_server("embedded")
    broker = brokers(20, redis_url=store.url, broker_url=store_url)
    actor = rl_actor(broker=broker)(work)
    actor.push()
    store.stop()
    try:
        for _ in range(10):
            actor.push()
    finally:
        store.cont()
    (line,) = _warnings(caplog)
    assert line.startswith("Admission control check failed (TimeoutError: ")
    assert waiting(broker) == 11

    def pushes_until_refused() -> bool:
        try:
            actor.push()
        except AdmissionRejectedError:
            return True
        return False

    wait_until(pushes_until_refused, 60, "a count that includes what was let through")
    failed_open = broker.store.counters()["admission_failed_open"]
    assert failed_open >= 10
    assert waiting(broker) <= max(20, 1 + failed_open)


def test_the_brokers_own_error_is_what_a_push_raises(
    brokers: Brokers, private_server: PrivateServers, caplog: pytest.LogCaptureFixture
) -> None:
    import redis

    server = private_server("embedded")
    broker = brokers(redis_url=server.url)
    actor = rl_actor(broker=broker)(work)
    actor.push()
    server.kill()
    with pytest.raises(redis.ConnectionError):
        actor.push()
    server.restart()
    wait_until(lambda: _pushes(actor), 60, "a push after the restart")


def _pushes(actor: Any) -> bool:
    import redis

    try:
        actor.push()
    except (redis.ConnectionError, redis.TimeoutError, OSError):
        return False
    return True


def test_a_lost_script_cache_is_not_noticed(brokers: Brokers, caplog: pytest.LogCaptureFixture) -> None:
    broker = brokers(3)
    actor = rl_actor(broker=broker)(work)
    actor.push()
    broker.connection.script_flush()
    actor.push()
    actor.push()
    with pytest.raises(AdmissionRejectedError):
        actor.push()
    assert _warnings(caplog) == []


def test_a_connection_that_was_closed_is_made_again(brokers: Brokers, caplog: pytest.LogCaptureFixture) -> None:
    broker = brokers(3, admission_window=LONG)
    actor = rl_actor(broker=broker)(work)
    actor.push()
    broker.connection.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    wait_until(lambda: _pushes(actor), 60, "a push over new connections")
    assert used(broker) >= 1


# -- many processes -------------------------------------------------------------------------------------------------


def test_processes_that_hammer_a_limit_never_exceed_it(store_url: str, server: RedisServer, tmp_path: Path) -> None:
    """Two of them are killed meanwhile. Only tasks that were admitted in a window for certain are counted in it."""
    limit, window = 100, 1.0
    settings = {"redis_url": store_url, "admission_limit": limit, "admission_window": window}
    hammer = Hammer(tmp_path, settings, patience=60.0)
    try:
        for _ in range(4):
            hammer.start()
        hammer.go(server)
        for tasks in (limit // 2, 2 * limit, 3 * limit):
            wait_until(lambda least=tasks: len(noted(store_url)) > least, 60, "admitted tasks")  # type: ignore[misc]
            hammer.kill()
    finally:
        told = hammer.end()
    assert told == ""
    assert 0 < most_in_a_window(noted(store_url), window) <= limit


_SHORT_LIVED = """
import sys
import relier.admission
relier.admission.PATIENCE_SHARED = float(sys.argv[1])
from relier import AdmissionRejectedError, rl_actor

@rl_actor
def work(): pass

for _ in range(int(sys.argv[2])):
    try:
        work.push()
    except AdmissionRejectedError:
        pass
"""


@pytest.mark.parametrize(
    ("patience", "pushes", "counter", "count"),
    [("60", "3", "admission_rejected", 2), ("0", "1", "admission_failed_open", 1)],
)
def test_a_process_that_ends_tells_what_admission_decided_last(
    patience: str, pushes: str, counter: str, count: int, brokers: Brokers, store_url: str, tmp_path: Path
) -> None:
    (tmp_path / "short_lived.py").write_text(_SHORT_LIVED)
    settings: dict[str, str | None] = {"redis_url": store_url, "admission_limit": "1", "admission_window": "3600"}
    done = processes.run(tmp_path, "short_lived", patience, pushes, **settings)
    assert done.returncode == 0, done.stderr
    assert brokers().store.counters()[counter] == count
