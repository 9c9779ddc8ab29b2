"""What happens to the tasks of the dead, and of the living who do not run them."""

from __future__ import annotations

import pytest

from relier.store import Settled, Suspicion, Verdict
from relier.store.verdicts import Burial
from tests.store.desk import NOW, SHARD, Desk

# -- bury (R6) --------------------------------------------------------------------------------------------------------


def test_a_dead_workers_runs_are_due_under_a_new_fence(desk: Desk) -> None:
    fence = desk.run("w1")
    desk.wait(1)

    assert desk.bury("w1") == Burial(put_back=1, dead_lettered=0, left=0)

    record = desk.record()
    assert (record.state, record.crashes, record.owner, record.sticky) == ("s", 1, "", True)
    assert record.fence > fence
    assert [(run.worker, run.outcome) for run in record.runs] == [("w1", "crashed")]
    assert [due.fence for due in desk.due()] == [record.fence]
    assert (desk.count("crashes"), desk.count("resurrections")) == (1, 1)


def test_a_worker_that_left_in_order_crashed_nothing(desk: Desk) -> None:
    desk.run("w1")
    desk.bury("w1", "left")
    record = desk.record()
    assert (record.state, record.crashes, record.runs[0].outcome) == ("s", 0, "handed over")
    assert (desk.count("crashes"), desk.count("handed_over")) == (0, 1)


def test_a_dead_workers_pending_hooks_are_due(desk: Desk) -> None:
    fence = desk.run("w1")
    desk.commit(fence, hooks=True)

    desk.bury("w1")

    record = desk.record()
    assert (record.state, record.owner, record.sticky, record.crashes) == ("h", "", True, 1)
    assert record.fence > fence
    assert [due.state for due in desk.due()] == ["h"]


def test_hooks_that_kill_every_process_that_runs_them_are_given_up(desk: Desk) -> None:
    desk.commit(desk.run("w0"), "w0", hooks=True)
    limit, deaths = desk.record().max_resurrections, 0
    while desk.record().state == "h":
        desk.bury(f"w{deaths}")
        deaths += 1
        if desk.record().state == "h":
            assert desk.claim(f"w{deaths}", seen=desk.record().fence).verdict is Verdict.REPLAY

    assert deaths == limit + 5 + 1
    assert (desk.record().state, desk.record().outcome) == ("e", "completed")
    assert desk.count("hooks_abandoned") == 1
    assert desk.due() == []


def test_burying_again_changes_nothing(desk: Desk) -> None:
    desk.run("w1")
    desk.bury("w1")
    before = desk.record()
    assert desk.bury("w1") == Burial(0, 0, 0)
    assert desk.record() == before


def test_more_than_a_hundred_tasks_are_buried_in_pieces(desk: Desk) -> None:
    for i in range(250):
        desk.run("w1", f"t{i}")

    pieces = [desk.bury("w1") for _ in range(3)]

    assert [piece.put_back for piece in pieces] == [100, 100, 50]
    assert [piece.left for piece in pieces] == [150, 50, 0]
    assert {desk.state(f"t{i}") for i in range(250)} == {"s"}
    assert {desk.record(f"t{i}").crashes for i in range(250)} == {1}


def test_the_tasks_of_others_stay_with_them(desk: Desk) -> None:
    desk.run("w1", "a")
    desk.run("w2", "b")
    desk.bury("w1")
    assert (desk.state("a"), desk.state("b"), desk.record("b").owner) == ("s", "r", "w2")


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_task_runs_once_and_as_often_again_as_it_may_be_resurrected(desk: Desk, limit: int) -> None:
    runs = 0
    desk.run("w0", max_resurrections=limit)
    while True:
        runs += 1
        worker = f"w{runs - 1}"
        desk.bury(worker)
        if desk.state() == "d":
            break
        assert desk.claim(f"w{runs}", seen=desk.published()).verdict is Verdict.GRANTED

    assert runs == 1 + limit
    record = desk.record()
    assert (record.reason, record.crashes) == ("max_resurrections_exceeded", limit + 1)
    assert [run.worker for run in record.runs] == [f"w{i}" for i in range(runs)]


def test_a_released_poison_task_gets_one_run_and_is_quarantined_again(desk: Desk) -> None:
    desk.run("w1", max_resurrections=0)
    desk.bury("w1")

    assert desk.tasks.hold("t", "release", "somebody", SHARD)[0] == "released"
    assert desk.claim("w2", seen=desk.published()).verdict is Verdict.GRANTED
    desk.bury("w2")

    assert (desk.state(), desk.record().crashes) == ("d", 2)
    assert desk.claim("w3", seen=desk.record().fence).verdict is Verdict.SETTLED


# -- suspects (R9) ----------------------------------------------------------------------------------------------------


def test_whatever_ran_beside_a_suspect_is_counted_until_it_is_a_suspect_too(desk: Desk) -> None:
    desk.crash("w1", "suspect")
    desk.crash("w2", "suspect")
    for crashes, worker in enumerate(("w3", "w4"), 1):
        assert desk.claim(worker, "suspect", desk.published("suspect")).suspect
        seen = desk.published("bystander") if crashes > 1 else 0
        assert desk.claim(worker, "bystander", seen, slot=False).verdict is Verdict.GRANTED
        desk.bury(worker)
        assert desk.record("suspect").crashes == 2 + crashes
        assert (desk.record("bystander").crashes, desk.state("bystander")) == (crashes, "s")

    assert desk.record("bystander").suspect
    assert desk.claim("w5", "bystander", desk.published("bystander"), slot=False).verdict is Verdict.HELD


def test_what_is_due_says_how_alone_it_has_to_run(desk: Desk) -> None:
    desk.run("w0", max_resurrections=3)
    for crashes, suspicion in enumerate((Suspicion.NONE, Suspicion.SUSPECT, Suspicion.LAST), 1):
        desk.bury(f"w{crashes - 1}")
        assert [due.suspicion for due in desk.due()] == [suspicion]
        desk.claim(f"w{crashes}", seen=desk.published())


# -- reconcile (R8) ---------------------------------------------------------------------------------------------------


def test_a_run_that_nobody_runs_is_put_back_without_a_crash(desk: Desk) -> None:
    fence = desk.run("w1")
    snapshot = desk.tasks.begin_snapshot()

    found = desk.tasks.reconcile("w1", snapshot, {SHARD: []})

    assert found.released == ("t",)
    record = desk.record()
    assert (record.state, record.crashes, record.runs[0].outcome) == ("s", 0, "released")
    assert record.fence > fence


def test_a_run_in_the_snapshot_is_left_alone(desk: Desk) -> None:
    fence = desk.run("w1")
    snapshot = desk.tasks.begin_snapshot()
    for local in ([("t", fence)], [("t", 0)]):
        found = desk.tasks.reconcile("w1", snapshot, {SHARD: local})
        assert (found.released, found.lost, found.missing) == ((), (), ())
    assert desk.state() == "r"


def test_a_run_claimed_after_the_snapshot_was_begun_is_left_alone_until_the_next(desk: Desk) -> None:
    snapshot = desk.tasks.begin_snapshot()
    desk.run("w1")
    assert desk.tasks.reconcile("w1", snapshot, {SHARD: []}).released == ()
    assert desk.tasks.reconcile("w1", desk.tasks.begin_snapshot(), {SHARD: []}).released == ("t",)


def test_ended_tasks_whose_hooks_nobody_runs_are_due(desk: Desk) -> None:
    desk.commit(desk.run("w1"), hooks=True)
    assert desk.tasks.reconcile("w1", desk.tasks.begin_snapshot(), {SHARD: []}).released == ("t",)
    assert desk.claim("w2", seen=desk.published()).verdict is Verdict.REPLAY


def test_a_run_that_moved_on_is_told_as_lost(desk: Desk) -> None:
    fence = desk.run("w1")
    desk.claim("w2", seen=fence + 5)
    found = desk.tasks.reconcile("w1", desk.tasks.begin_snapshot(), {SHARD: [("t", fence)]})
    assert found.lost == ("t",)
    assert desk.record().owner == "w2"


def test_a_buried_workers_beat_does_nothing(desk: Desk) -> None:
    desk.bury("w1")
    found = desk.tasks.reconcile("w1", desk.tasks.begin_snapshot(), {SHARD: [("t", NOW)]})
    assert (found.released, found.lost, found.missing) == ((), (), ())


# -- adopt (R8) -------------------------------------------------------------------------------------------------------


def test_a_run_that_the_store_lost_is_told_as_missing_and_adopted(desk: Desk) -> None:
    fence = desk.run("w1")
    desk.client.flushall()
    assert desk.tasks.reconcile("w1", desk.tasks.begin_snapshot(), {SHARD: [("t", fence)]}).missing == ("t",)

    for _ in range(2):
        assert desk.tasks.adopt("w1", desk.sending(), fence)

    record = desk.record()
    assert (record.state, record.owner, record.fence, record.sticky) == ("r", "w1", fence, True)
    assert record.body == b"body of t"
    assert desk.run("w2", "another") > fence
    assert desk.count("adopted") == 1


def test_a_run_is_adopted_from_an_older_record(desk: Desk) -> None:
    desk.fail(desk.run("w1"), retry=True)
    newer = desk.record().fence + 10
    assert desk.tasks.adopt("w2", desk.sending(), newer)
    assert (desk.record().owner, desk.record().fence, desk.due()) == ("w2", newer, [])


def test_a_run_adopted_from_an_older_dead_letter_can_fail_again(desk: Desk) -> None:
    fence = desk.run("w1")
    desk.fail(fence)
    assert desk.tasks.adopt("w2", desk.sending(), fence + 10)
    assert desk.store.live()["dead_letters"] == 0
    assert desk.fail(fence + 10, "w2", retry=True) == "retry"
    assert desk.state() == "s"


def test_a_run_is_not_adopted_from_a_newer_record_an_ended_one_or_by_the_buried(desk: Desk) -> None:
    fence = desk.run("w1")
    assert not desk.tasks.adopt("w2", desk.sending(), fence)
    assert not desk.tasks.adopt("w2", desk.sending(), fence - 1)
    desk.commit(fence)
    assert not desk.tasks.adopt("w2", desk.sending(), fence + 1)
    desk.bury("w3")
    assert not desk.tasks.adopt("w3", desk.sending("u"), fence)


def test_an_unsettled_end_keeps_its_hooks_with_the_worker(desk: Desk) -> None:
    """What has ended but is not yet settled is in the snapshot too."""
    fence = desk.run("w1")
    desk.commit(fence, hooks=True)
    settled = Settled("t", SHARD, fence, True)
    snapshot = desk.tasks.begin_snapshot()
    assert desk.tasks.reconcile("w1", snapshot, {SHARD: [(settled.task_id, settled.fence)]}).released == ()
    desk.tasks.settle([settled])
    assert desk.find() is None
