"""Of all tasks that mean the same one completes, whatever dies, and the others get its result without polling."""

from __future__ import annotations

from relier import TaskReceipt
from tests.conformance.topologies import where
from tests.integration.harness import Harness
from tests.integration.scenario import group, pipeline

_SUBMIT = """
with open({ids!r}, "w", buffering=1) as ids:
    for number in range({count}):
        print(a.once.push({gate!r}, number).id, file=ids)
"""


def _result(fleet: Harness, task: str) -> str:
    return str(TaskReceipt.from_id(task, broker=fleet.broker).result(timeout=30))


@where(("embedded", "rabbitmq"))
def test_many_submissions_have_one_completed_run_though_its_workers_are_killed(fleet: Harness) -> None:
    fleet.workers(2)
    files = [fleet.folder / f"ids-{number}" for number in range(2)]
    producers = [fleet.producer(_SUBMIT.format(ids=str(file), count=60, gate=fleet.gate())) for file in files]
    for kills in (1, 2):
        fleet.wait(lambda n=kills: len(fleet.effects("began")) == n, what=f"run {kills}")  # type: ignore[misc]
        fleet.process_of(fleet.effects("began")[-1].pid).kill()
        fleet.worker()
    assert [producer.popen.wait(60) for producer in producers] == [0, 0]
    fleet.wait(lambda: len(fleet.effects("began")) == 3, what="the third run")
    fleet.wait(lambda: fleet.store.counters().get("duplicates_waited", 0) >= 119, what="119 tasks that wait")
    fleet.open_gate()

    counters = fleet.settle(120)

    assert counters["completed"] == 120
    assert counters["idempotency_hits"] == 119
    assert {effect.pid for effect in fleet.effects("ran")} == {fleet.effects("began")[-1].pid}
    ids = [task for file in files for task in file.read_text().split()]
    assert {_result(fleet, task) for task in ids} == {f"{e.task}/{e.fence}" for e in fleet.effects("ran")}
    # Only what a death put back was published, and a copy that nobody claimed in time.
    assert counters.get("published", 0) < 50, counters


@where(("embedded", "rabbitmq"))
def test_what_follows_a_duplicate_gets_the_result(fleet: Harness) -> None:
    """In pipelines and groups, and though the one that runs fails at first."""
    a, broker = fleet.actors, fleet.broker
    fleet.worker(threads=4)
    for number in range(2):
        pipeline([a.add_once.message(1, 2, fleet.gate()), a.told.message(number)], broker=broker).run()
    pipeline([a.add.message(0, 1), a.add_once.message_with_options(kwargs={"y": 2})], broker=broker).run()
    several = group([a.add_once.message(1, 2, fleet.gate()) for _ in range(3)], broker=broker)
    several.add_completion_callback(a.told.message("group"))
    several.run()
    fleet.wait(lambda: fleet.store.counters().get("duplicates_waited", 0) >= 4, what="four tasks that wait")
    fleet.open_gate()

    counters = fleet.settle(2 * 2 + 2 + 3 + 1)

    assert counters["completed"] == 10
    assert sorted((effect.detail for effect in fleet.effects("told")), key=str) == [["group"], [0, 3], [1, 3]]
    assert len(fleet.effects("ran")) == 3  # One of the five, the other key, and the one before it.
    assert counters["retries"] == 2


@where(("embedded",))
def test_a_killed_holders_next_run_has_its_lock_at_once(fleet: Harness) -> None:
    """Long before it would lapse, which is after two minutes. Another task fails, is retried, and finds it done."""
    fleet.workers(2)
    holder = fleet.actors.locked.push(fleet.gate()).id
    fleet.wait(lambda: fleet.effects("began", holder), what="the lock")
    other = fleet.actors.locked.push(fleet.gate()).id
    fleet.wait(lambda: fleet.store.counters().get("retries"), what="the refusal of the other one")

    fleet.process_of(fleet.effects("began")[0].pid).kill()

    fleet.wait(lambda: len(fleet.effects("began", holder)) == 2, what="its second run")
    fleet.open_gate()
    counters = fleet.settle(2)
    assert counters["completed"] == 2
    assert [effect.detail for effect in fleet.effects("cached", other)] == [holder]
    assert list(fleet.counted("ran").items()) == [(holder, 1)]
