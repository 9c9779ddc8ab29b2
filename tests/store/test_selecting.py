"""What the store selects is what a look at every record selects."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from relier.store import Store
from relier.store.selecting import Selected, Wanted, select
from relier.store.survey import MARK, Summary, Survey
from tests.cli.conftest import Tasks

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


@pytest.fixture
def tasks(store: Store) -> Tasks:
    """Some tasks of each state and queue; those that ended are settled, so that only their ids are kept."""
    tasks = Tasks(store)
    for n in range(150):
        queue = ("default", "low_priority")[n % 2]
        tasks.scheduled(600.0, queue)
        tasks.scheduled(0.0, queue)
        tasks.running(n, queue=queue)
    for n in range(20):
        tasks.dead(n)
        tasks.discarded()
        tasks.completed()
    store.client.zadd(store.keys.shard(3, "")[6], {"a mark": f"5{MARK}"})
    store.client.zadd(store.keys.shard(4, "")[6], {f"ended-{n}": str(n) for n in range(30)})
    return tasks


def looked_up(store: Store, limit: int, **wanted: str) -> Selected:
    """Do the same with every record at hand."""
    survey = Survey(store)
    now, found = survey.now(), Selected()

    def key(task: Summary) -> tuple[float, float, float, str]:
        return task.created_at, task.granted_at, task.due_at, task.task_id

    for task in sorted(survey.all(), key=key, reverse=True):
        status = task.status(now)
        found.by_status[status] += 1
        fields = {"status": status, "actor": task.actor, "queue": task.queue, "reason": task.reason}
        if all(fields[name] == value for name, value in wanted.items()) and len(found.tasks) < limit:
            found.tasks.append(task)
    return found


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"status": "due"},
        {"status": "scheduled", "queue": "low_priority"},
        {"status": "running", "actor": "work"},
        {"status": "completed"},
        {"status": "discarded"},
        {"status": "dead", "reason": "ValueError"},
        {"actor": "nobody"},
    ],
    ids=str,
)
def test_the_newest_of_those_wanted_are_found_and_all_are_counted(
    store: Store, tasks: Tasks, wanted: dict[str, str]
) -> None:
    everything = looked_up(store, 10_000, **wanted)
    for limit in (1, 7, 1000):
        found = select(store, Wanted(**wanted), limit)  # type: ignore[arg-type]
        assert found.tasks == everything.tasks[:limit]
        assert found.by_status == everything.by_status
        assert found.queues == {"default", "low_priority"}
        assert found.actors == {"work"}


def test_what_was_made_before_is_left_out(store: Store, tasks: Tasks) -> None:
    assert select(store, Wanted(since=int(time.time()) + 3600), 10).tasks == []
    assert len(select(store, Wanted(since=int(time.time()) - 3600, status="due"), 1000).tasks) == 150


def test_a_record_of_a_newer_format_is_counted_and_told(store: Store, tasks: Tasks) -> None:
    """Its first field says that this version knows nothing else of it."""
    store.client.hset(store.keys.shard(0, "")[0], "from-the-future", b"\x92\x63\xa1x")  # [99, "x"]
    found = select(store, Wanted(), 10_000)
    assert found.by_status["unknown"] == 1
    assert "from-the-future" in {task.task_id for task in found.tasks}
    assert select(store, Wanted(status="due"), 10_000).by_status == Counter(found.by_status)
