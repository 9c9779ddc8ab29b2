"""Pipelines, groups and callbacks work as in Dramatiq, each follow-up as a task of its own."""

from __future__ import annotations

from typing import Any

from tests.integration.harness import Harness
from tests.integration.scenario import group, pipeline


def _told(fleet: Harness) -> list[Any]:
    return sorted((effect.detail for effect in fleet.effects("told")), key=str)


def test_a_pipeline_runs_twice_when_it_is_run_twice(fleet: Harness) -> None:
    fleet.worker()
    a = fleet.actors
    chain = pipeline([a.add.message(1, 2), a.aadd.message(4), a.told.message("end")], broker=fleet.broker)
    chain.run()
    chain.run()

    fleet.settle(6)

    assert _told(fleet) == [["end", 7], ["end", 7]]


def test_a_pipeline_stage_may_ignore_the_result_before_it(fleet: Harness) -> None:
    fleet.worker()
    a = fleet.actors
    chain = [a.add.message(1, 2), a.told.message_with_options(args=("alone",), pipe_ignore=True)]
    pipeline(chain, broker=fleet.broker).run()
    pipeline([a.add.message(5, 6), a.told.message_with_options(delay=100)], broker=fleet.broker).run(delay=100)

    fleet.settle(4)

    assert _told(fleet) == [["alone"], [11]]


def test_a_group_tells_its_end_once_for_each_of_its_runs(fleet: Harness) -> None:
    fleet.workers(2)
    a = fleet.actors
    members = [a.add.message(i, i) for i in range(5)] + [a.flaky.message(1)]
    inner = pipeline([a.add.message(1, 1), a.aadd.message(2)], broker=fleet.broker)
    several = group([*members, inner], broker=fleet.broker)
    several.add_completion_callback(a.told.message("one"))
    several.add_completion_callback(a.told.message("two"))
    several.run()
    several.run()

    fleet.settle(2 * (6 + 2 + 2))

    assert _told(fleet) == [["one"], ["one"], ["two"], ["two"]]
    members_done = max(effect.mono for effect in fleet.effects("ran"))
    assert fleet.store.counters()["completed"] == 20
    assert members_done <= max(effect.mono for effect in fleet.effects("told"))


def test_a_group_with_a_dead_member_tells_nothing(fleet: Harness) -> None:
    fleet.worker()
    a = fleet.actors
    several = group([a.add.message(1, 1), a.broken.message("dead")], broker=fleet.broker)
    several.add_completion_callback(a.told.message("never"))
    several.run()

    fleet.settle(2)

    assert _told(fleet) == []


def test_callbacks_get_what_dramatiq_gives_them(fleet: Harness) -> None:
    fleet.worker()
    a = fleet.actors
    good = a.add.send_with_options(args=(1, 2), on_success="told")
    bad = a.broken.send_with_options(args=("oh",), on_failure="told")
    tried = a.flaky.send_with_options(args=(9,), max_retries=2, on_failure="told", on_retry_exhausted="told")

    # Three failed runs of the last one are told, and its end.
    counters = fleet.settle(3 + 1 + 1 + 4)

    assert counters["dead"] == 2
    told = [effect.detail for effect in fleet.effects("told")]
    assert {detail[0]["queue_name"] for detail in told} == {"default"}
    by_task = {
        task: [d[1] for d in told if d[0]["message_id"] == task] for task in (m.message_id for m in (good, bad, tried))
    }
    assert by_task[good.message_id] == [3]
    assert by_task[bad.message_id] == [{"type": "TypeError", "message": "oh"}]
    assert len(by_task[tried.message_id]) == 4
    assert {"retries": 2, "max_retries": 2} in by_task[tried.message_id]
