"""Receipts and results: the same on every broker, from any process, and across the death of a worker."""

from __future__ import annotations

import asyncio
import json

import pytest
from dramatiq.results.errors import ResultFailure

from relier import ResultMissing, TaskFailedError, TaskReceipt
from tests.conformance.topologies import USUAL, cases, where
from tests.integration.harness import Harness
from tests.integration.scenario import pipeline

#: What a web application does, in a process that never runs a task.
_PRODUCER = """
import asyncio, json
from relier import ResultMissing, TaskFailedError, TaskReceipt

async def push():
    return await a.aadd.apush(2, 3)

first, second, third, fourth = a.add.push(1, 2), asyncio.run(push()), a.broken.push("oh"), a.quick.push(1)
said = [first.result(timeout=60), asyncio.run(TaskReceipt.from_id(second.id).aresult(timeout=60))]
for receipt in (third, fourth):
    try:
        said.append(receipt.result(timeout=60))
    except (TaskFailedError, ResultMissing) as error:
        said.append([type(error).__name__, str(error)])
said.append([TaskReceipt.from_id(receipt.id).status() for receipt in (first, second, third)])
print("said " + json.dumps(said), flush=True)
"""


@where()
def test_a_process_that_only_pushes_reads_results_and_ends(fleet: Harness) -> None:
    fleet.worker()

    producer = fleet.producer(_PRODUCER)

    assert producer.popen.wait(100) == 0, fleet.report()
    said = json.loads(producer.text().partition("said ")[2].splitlines()[0])
    assert said[:3] == [3, 5, ["TaskFailedError", "TypeError: oh"]]
    assert said[3][0] == "ResultMissing"
    assert "keeps no results" in said[3][1]
    assert said[4] == ["completed", "completed", "dead"]
    fleet.settle(4)


@where()
def test_a_task_is_cancelled_wherever_it_is(fleet: Harness) -> None:
    a = fleet.actors
    queued, late = a.add.push(1, 1), TaskReceipt.from_id("t-unknown", broker=fleet.broker)
    assert queued.cancel() == "cancelled"
    assert queued.status() == "discarded"
    fleet.worker()
    waiting, sync = a.agated.push(fleet.gate("shut")), a.answering.push(fleet.gate())
    fleet.wait(lambda: len(fleet.effects("began")) == 2, what="two running tasks")

    assert late.cancel() == "marked"
    for receipt in (waiting, sync):
        fleet.wait(lambda: asyncio.run(receipt.acancel()) == "asked", what="a worker that listens")  # noqa: B023

    for receipt in (queued, waiting, sync):
        fleet.wait(lambda: receipt.status() == "discarded", what="the cancellation")  # noqa: B023
        with pytest.raises(TaskFailedError, match="discarded: cancelled"):
            receipt.result()
    assert sync.cancel() == "cancelled"  # as it was
    fleet.open_gate()
    last = a.answering.push(fleet.gate())
    assert last.result(timeout=60) == 42
    assert (last.cancel(), last.status()) == ("ended", "completed")
    counters = fleet.settle(4)  # The one of which nothing is known is but marked.
    assert counters["discarded:cancelled"] == 3
    assert set(fleet.counted("ran")) == {last.id}


@pytest.mark.parametrize(("point", "topology"), cases({"committed": USUAL, "hooks": ()}), indirect=["topology"])
def test_a_result_outlives_the_worker_that_dies_before_its_hooks_are_done(point: str, fleet: Harness) -> None:
    """What waits for the result gets it at once; the callback follows, once."""
    victim = fleet.worker(threads=1, failpoints=f"{point}=kill:{fleet.marker(point)}")
    message = fleet.actors.add.send_with_options(args=(20, 22), on_success="told")
    receipt = TaskReceipt.of(message, fleet.broker)
    fleet.wait(fleet.marker(point).exists, what="the death")
    victim.popen.wait(60)

    assert receipt.result(timeout=0) == 42
    assert receipt.status() == "completed"

    fleet.worker()
    fleet.settle(2)
    assert fleet.counted("ran") == {message.message_id: 1}
    assert [effect.detail[1] for effect in fleet.effects("told")] == [42]
    assert receipt.result(timeout=0) == message.get_result(backend=fleet.broker.get_results_backend()) == 42


@where(("embedded",))
def test_a_result_that_cannot_be_kept_leaves_its_task_completed(fleet: Harness) -> None:
    fleet.worker(max_result_bytes=100)
    large, odd = fleet.actors.returning.push("large"), fleet.actors.returning.push("odd")

    with pytest.raises(ResultMissing, match="completed, result too large"):
        large.result(timeout=60)
    with pytest.raises(ResultMissing, match="cannot be encoded: TypeError"):
        odd.result(timeout=60)

    counters = fleet.settle(2)
    assert (counters["completed"], counters.get("failed", 0)) == (2, 0)
    assert {large.status(), odd.status()} == {"completed"}


@where(("embedded",))
def test_a_result_that_cannot_be_passed_on_makes_a_dead_letter(fleet: Harness) -> None:
    """Else the next task, which was promised, would be lost in silence."""
    fleet.worker()
    a = fleet.actors
    piped = pipeline([a.returning.message("odd"), a.told.message()], broker=fleet.broker).run()
    called = a.returning.send_with_options(args=("odd",), on_success="told")
    ignored = pipeline([a.returning.message("odd"), a.told.message_with_options(pipe_ignore=True)], broker=fleet.broker)
    ignored.run()

    fleet.settle(2 + 2)

    assert fleet.dead_ones() == ["TypeError", "TypeError"]
    with pytest.raises(TaskFailedError, match="to be passed on, and cannot be encoded"):
        TaskReceipt.of(called, fleet.broker).result()
    assert TaskReceipt.from_id(piped.messages[0].message_id, broker=fleet.broker).status() == "dead"
    assert len(fleet.effects("told")) == 1


@where(("rabbitmq",))
def test_dramatiqs_results_tell_the_same(fleet: Harness) -> None:
    fleet.worker()
    good, bad = fleet.actors.add.send(1, 2), fleet.actors.broken.send("oh")
    fleet.settle(2)
    backend = fleet.broker.get_results_backend()

    assert good.get_result(backend=backend) == TaskReceipt.of(good, fleet.broker).result() == 3
    with pytest.raises(ResultFailure, match="actor raised TypeError: oh"):
        bad.get_result(backend=backend)
