"""Tasks of every kind reach exactly one end."""

from __future__ import annotations

import asyncio
import time

import pytest
from dramatiq.results.errors import ResultFailure

from tests.conformance.topologies import EVERYWHERE, where
from tests.integration.harness import Harness


@where(EVERYWHERE)
def test_tasks_of_every_kind_complete_once(fleet: Harness) -> None:
    fleet.worker()
    actors = fleet.actors
    adds = [actors.add.push(i, 1) for i in range(20)]
    asyncs = [actors.aadd.push(i, 1) for i in range(20)]
    plains = [actors.plain.send(i) for i in range(10)]
    late = actors.quick.send_with_options(args=(7,), delay=300)
    flaky = actors.flaky.push(2)
    apushed = asyncio.run(actors.quick.apush(8))
    many = actors.quick.push_many([actors.quick.message(i) for i in range(10)])
    messages = [actors.add.message(i, 1) for i in range(3)] + [actors.aadd.message(i, 1) for i in range(3)]
    for message in messages:
        fleet.broker.enqueue(message)

    counters = fleet.settle(20 + 20 + 10 + 1 + 1 + 1 + 10 + 6)

    assert counters["completed"] == 69
    assert counters["failed"] == counters["retries"] == 2
    ran = fleet.counted("ran")
    expected = [*(r.id for r in (*adds, *asyncs, *many, apushed)), *(m.message_id for m in (*plains, late))]
    assert all(ran[task] == 1 for task in expected)
    assert ran[flaky.id] == 3
    backend = fleet.broker.get_results_backend()
    assert [m.get_result(backend=backend) for m in messages] == [1, 2, 3, 1, 2, 3]


def test_what_cannot_succeed_ends_in_the_dlq_and_its_result_is_a_failure(fleet: Harness) -> None:
    fleet.worker()
    message = fleet.actors.broken.message("no such luck")
    fleet.broker.enqueue(message)

    counters = fleet.settle(1)

    assert counters["dead"] == counters["failed"] == 1
    assert fleet.dead_ones() == ["TypeError"]
    with pytest.raises(ResultFailure, match="TypeError: no such luck"):
        message.get_result(backend=fleet.broker.get_results_backend())


def test_what_is_skipped_or_too_old_is_discarded(fleet: Harness) -> None:
    skipped = fleet.actors.skipping.push()
    old = fleet.actors.quick.send_with_options(args=(1,), max_age=1)
    fleet.wait(lambda: time.time() * 1000 > old.message_timestamp + 5)
    fleet.worker()

    counters = fleet.settle(2)

    assert counters["discarded"] == 2
    assert counters["discarded:skipped"] == counters["discarded:max_age"] == 1
    assert fleet.counted("ran") == {skipped.id: 1}
    assert fleet.store.status(old.message_id) == "discarded"


def test_an_actor_called_by_another_is_a_function(fleet: Harness) -> None:
    fleet.worker()
    message = fleet.actors.nested.message(4)
    fleet.broker.enqueue(message)

    fleet.settle(1)

    assert message.get_result(backend=fleet.broker.get_results_backend()) == 5
    assert {effect.task for effect in fleet.effects("ran")} == {message.message_id}


def test_a_worker_stopped_in_order_leaves_nothing_behind(fleet: Harness) -> None:
    worker = fleet.worker()
    worker.wait_ready()
    fleet.actors.quick.push_many([fleet.actors.quick.message(i) for i in range(200)])
    fleet.wait(lambda: len(fleet.effects("ran")) > 20, what="some tasks")

    assert worker.stop() == 0

    assert fleet.store.fleet.workers() == {}
    fleet.worker()
    counters = fleet.settle(200)
    assert counters["completed"] == 200
    assert counters.get("crashes", 0) == 0
    assert set(fleet.counted("ran").values()) == {1}
