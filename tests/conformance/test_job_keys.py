"""The newest task of a job wins, wherever the older one is, and whoever dies on the way."""

from __future__ import annotations

from itertools import pairwise

import pytest

from relier import TaskFailedError, TaskReceipt
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import cases, where
from tests.integration.harness import Harness
from tests.integration.scenario import pipeline

EMBEDDED, BOTH = ("embedded",), ("embedded", "rabbitmq")

_PUSH = "print(a.newest.push('j', '/').id)"

_PUSH_UNTIL = """
import os, time
effects = {effects!r}
with open({file!r}, "w", buffering=1) as told:
    while not os.path.exists({gate!r}):
        before = os.path.getsize(effects)
        for message in [a.newest.send("j", "/") for _ in range(3)]:
            print(message.options["relier"]["id"], message.options["relier"]["n"], file=told)
        while os.path.getsize(effects) == before and not os.path.exists({gate!r}):  # Let one of them run.
            time.sleep(0.002)
"""


def _is_superseded(fleet: Harness, task: str) -> None:
    with pytest.raises(TaskFailedError, match="discarded: superseded"):
        TaskReceipt.from_id(task, broker=fleet.broker).result(timeout=0)


@where(("embedded", "rabbitmq", "plain-redis"))
def test_the_newest_runs_and_older_ones_end_queued_or_delayed(fleet: Harness) -> None:
    """By every way to enqueue."""
    a = fleet.actors
    tasks = [
        a.newest.push("j").id,
        a.newest.send_with_options(args=("j",), delay=600_000).message_id,
        a.newest.send("j").message_id,
        *(receipt.id for receipt in a.newest.push_many(a.newest.message("j") for _ in range(3))),
        a.newest.send_with_options(args=("j",), delay=20).message_id,
    ]
    other = a.newest.push("another job").id

    fleet.worker()

    counters = fleet.settle(len(tasks) + 1)
    assert fleet.counted("ran") == {tasks[-1]: 1, other: 1}, fleet.report()
    assert counters["discarded:superseded"] == len(tasks) - 1
    for task in tasks[:-1]:
        _is_superseded(fleet, task)


@where(("embedded", "rabbitmq", "plain-redis"))
def test_a_task_that_pushes_itself_again_is_interrupted_once_that_is_published(fleet: Harness) -> None:
    """Interrupted before, it would leave the next one to a sweeper, minutes later."""
    jobs, times = 5, 6
    for number in range(jobs):
        fleet.actors.repeating.push(f"j{number}", times)
    fleet.worker()

    counters = fleet.settle(jobs * (times + 1))

    assert (counters["completed"], counters["discarded:superseded"]) == (jobs, jobs * times), fleet.report()
    assert sorted(effect.detail for effect in fleet.effects("ran")) == [0] * jobs


@where(BOTH)
def test_an_older_one_that_runs_is_cancelled_or_may_finish_but_never_completes(fleet: Harness) -> None:
    """Nothing but the cancel ends the function whose gate never opens."""
    a = fleet.actors
    fleet.worker(threads=6)
    older = [a.anewest.push("j", fleet.gate()).id, a.finishing.push("j", fleet.gate()).id]
    older.append(a.newest.push("k", fleet.gate("never")).id)
    retried = a.newest.push("j", "/", "fails").id
    fleet.wait(lambda: len(fleet.effects("began")) == 4, what="their runs")
    fleet.wait(lambda: fleet.store.counters().get("retries"), what="the retry that is to come")

    newer = [a.anewest.push("j").id, a.finishing.push("j").id, a.newest.push("j").id, a.newest.push("k").id]

    fleet.wait(lambda: fleet.effects("cancelled", older[0]), what="the end of the async one")
    fleet.wait(lambda: len(fleet.effects("ran")) == 5, what="the newer ones")  # and the one that failed
    fleet.open_gate()
    fleet.wait(lambda: fleet.effects("ran", older[1]), what="the end of the one that may finish")
    counters = fleet.settle(8)
    assert counters["completed"] == 4
    assert counters["discarded:superseded"] == 4
    assert fleet.counted("ran") == dict.fromkeys([older[1], retried, *newer], 1), fleet.report()
    for task in (*older, retried):
        _is_superseded(fleet, task)


@pytest.mark.parametrize(
    ("point", "topology"), cases({"before-custody": EMBEDDED, "in-custody": BOTH}), indirect=["topology"]
)
def test_a_producer_killed_at(point: str, fleets: Fleets) -> None:
    """Before the store has the newer one, the older one runs; then the newer one does, though its producer is gone."""
    fleet = fleets(resurrection_claim_grace_period=0.2)
    older = fleet.actors.newest.send_with_options(args=("j",), delay=2_000).message_id
    producer = fleet.producer(_PUSH, failpoints=f"{point}=kill")
    assert producer.popen.wait(60) == -9, producer.text()

    fleet.worker()

    has_custody = point == "in-custody"
    counters = fleet.settle(1 + has_custody)
    assert counters["completed"] == 1
    assert counters.get("discarded:superseded", 0) == has_custody
    assert (fleet.counted("ran") == {older: 1}) != has_custody, fleet.report()
    assert len(fleet.effects("ran")) == 1


@pytest.mark.parametrize(
    ("point", "topology"), cases({"before-custody": EMBEDDED, "in-custody": ("rabbitmq",)}), indirect=["topology"]
)
def test_a_worker_whose_task_is_followed_by_one_with_a_key_killed_at(point: str, fleet: Harness) -> None:
    """The replayed hook enqueues the same task, and ends it not."""
    a = fleet.actors
    fleet.workers(2, failpoints=f"{point}=kill:{fleet.marker(point)}")
    follower = a.newest.message_with_options(args=("j",), pipe_ignore=True)

    pipeline([a.add.message(1, 2), follower], broker=fleet.broker).run()

    counters = fleet.settle(2)
    assert fleet.marker(point).exists(), fleet.report()
    assert counters["completed"] == 2
    assert fleet.effects("ran", follower.message_id)


@where(BOTH)
def test_no_older_one_begins_after_a_newer_push_of_two_producers_though_workers_die(fleet: Harness) -> None:
    workers = fleet.workers(2)
    files = [fleet.folder / f"pushed-{number}" for number in range(2)]
    effects = str(fleet.effects_path)
    producers = [fleet.producer(_PUSH_UNTIL.format(file=str(f), gate=fleet.gate(), effects=effects)) for f in files]
    killed: set[int] = set()
    for _ in range(2):
        fleet.wait(lambda: {effect.pid for effect in fleet.effects("began")} - killed, what="a run")
        victim = next(e.pid for e in reversed(fleet.effects("began")) if e.pid not in killed)
        next(worker for worker in workers if worker.has(victim)).kill()
        killed.add(victim)
        workers.append(fleet.worker())
    fleet.open_gate()
    assert [producer.popen.wait(60) for producer in producers] == [0, 0]

    ranks = {task: int(rank) for file in files for task, rank in map(str.split, file.read_text().splitlines())}
    counters = fleet.settle(len(ranks))

    assert counters["completed"] + counters.get("discarded:superseded", 0) == len(ranks)
    by_rank = sorted(ranks, key=lambda task: ranks[task])
    for older, newer in pairwise(by_rank):
        late = [effect for effect in fleet.effects("began", older) if effect.fence > ranks[newer]]
        assert not late, fleet.report()
    assert fleet.effects("ran", by_rank[-1])


@where(BOTH)
def test_a_follow_up_supersedes_a_dead_letter_and_is_never_refused(fleet: Harness) -> None:
    a = fleet.actors
    fleet.worker()
    dead = a.strict.push(7, "text").id
    fleet.settle(1)

    pipeline([a.add.message(1, 2), a.strict.message(7)], broker=fleet.broker).run()

    counters = fleet.settle(3)
    assert (counters["dead"], counters["dlq_left"], counters["discarded:superseded"]) == (2, 1, 1)
    _is_superseded(fleet, dead)
