"""Whatever clocks do, nothing waits for an hour longer, and nothing is forgotten early."""

from __future__ import annotations

import pytest

from relier.store import Parking, Settled, Verdict
from tests.store.desk import SHARD, Desk

HOUR = 3600.0


def _due(desk: Desk) -> list[str]:
    return [due.task_id for due in desk.due()]


def _put_back(desk: Desk, how: str) -> None:
    fence = desk.run("w1")
    if how == "burial":
        desk.bury("w1")
    elif how == "hand-over":
        desk.tasks.hand_over("w1", desk.sending(), fence, "drain")
    elif how == "hooks of the dead":
        desk.commit(fence, hooks=True)
        desk.bury("w1")
    else:
        desk.tasks.reconcile("w1", desk.tasks.begin_snapshot(), {SHARD: []})


BACK = ("burial", "hand-over", "hooks of the dead", "reconciliation")


@pytest.mark.parametrize("how", BACK)
def test_an_orphan_is_due_at_once_whatever_the_clock_says(desk: Desk, how: str) -> None:
    _put_back(desk, how)
    desk.wait(-100 * HOUR)
    assert _due(desk) == ["t"]


def test_orphans_come_before_what_waited_for_its_time(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending("a"), 1)
    desk.wait(HOUR)
    _put_back(desk, "burial")
    assert _due(desk) == ["t", "a"]


@pytest.mark.parametrize("how", BACK)
def test_people_see_an_orphan_due_since_it_was_put_back(desk: Desk, how: str) -> None:
    before = desk.wait(0) / 1e6
    _put_back(desk, how)
    assert before - 1 < desk.record().due_at <= before
    desk.wait(-HOUR)
    assert desk.record().due_at <= before - HOUR


@pytest.mark.parametrize("what", ["delay", "retry", "grace", "no consumer"])
def test_a_clock_that_is_set_back_makes_nothing_wait_for_the_same_hour_twice(desk: Desk, what: str) -> None:
    if what == "retry":
        desk.fail(desk.run(), retry=True, delay=30)
    else:
        desk.tasks.schedule(desk.sending(), 30 if what == "delay" else 0)
    if what == "grace":
        desk.tasks.mark_published(desk.due(), 30, 1800)
    if what == "no consumer":
        desk.tasks.park([(due, Parking("no consumer")) for due in desk.due()], 30)
    assert _due(desk) == []

    desk.wait(-HOUR)
    assert _due(desk) == []
    desk.wait(41)

    assert _due(desk) == ["t"]
    assert desk.events() == ["clock set back"]


def test_the_time_is_noted_while_something_waits(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 2 * HOUR)
    for _ in range(11):
        desk.wait(600)
        assert _due(desk) == []
    desk.wait(-HOUR)
    assert _due(desk) == []
    desk.wait(611)
    assert _due(desk) == ["t"]


def test_what_is_scheduled_after_the_clock_was_set_back_comes_in_time(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending("early"), 2 * HOUR)
    desk.wait(-HOUR)
    desk.tasks.schedule(desk.sending("late"), 60)
    assert 59 < desk.store.records(["late"], SHARD)["late"].due_at - desk.wait(0) / 1e6 < 61  # People see server time.
    desk.wait(59)
    assert _due(desk) == []
    desk.wait(2)
    assert _due(desk) == ["late"]


def test_a_clock_that_is_set_ahead_and_back_between_two_looks_strands_nothing(desk: Desk) -> None:
    desk.wait(HOUR)
    desk.fail(desk.run(), retry=True, delay=5)
    desk.wait(-HOUR)
    assert _due(desk) == []
    desk.wait(16)
    assert _due(desk) == ["t"]


def test_small_steps_back_are_waited_out(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 5)
    desk.wait(-2)
    assert _due(desk) == []
    desk.wait(7)
    assert (_due(desk), desk.events()) == (["t"], [])


def test_without_anything_that_waits_the_servers_time_counts_again(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 5)
    desk.wait(-HOUR)
    assert _due(desk) == []
    desk.wait(5)
    desk.run(seen=desk.published())
    assert desk.due() == []
    meta = desk.store.keys.shard(SHARD, "")[2]
    assert desk.client.hmget(meta, "seen", "skew") == [None, None]


# -- remembered ids ---------------------------------------------------------------------------------------------------


def _ended(desk: Desk, task: str = "t") -> None:
    fence = desk.run(task=task)
    desk.commit(fence, task=task)
    desk.settle(fence, task, confirmed=False)


@pytest.mark.parametrize("jump", [HOUR, 100 * HOUR])
def test_a_clock_that_is_set_ahead_forgets_no_ended_task_early(desk: Desk, jump: float) -> None:
    _ended(desk)
    desk.watch(600)
    desk.wait(jump)
    desk.watch(600)
    assert desk.claim("w2").verdict is Verdict.SETTLED


def test_a_clock_that_is_set_back_keeps_no_ended_task_for_longer(desk: Desk) -> None:
    _ended(desk)
    desk.wait(-100 * HOUR)
    desk.watch(3630)
    assert desk.store.live()["remembered"] == 0


def test_only_watched_time_counts(desk: Desk) -> None:
    _ended(desk)
    desk.watch(1800)
    desk._watched += 100 * HOUR  # Nobody looked for so long.
    desk.watch(1700)
    assert desk.state() == "e"
    desk.watch(130)
    assert desk.state() == ""


def test_two_sweepers_do_not_count_the_same_time_twice(desk: Desk) -> None:
    _ended(desk)
    other = Desk(desk.client)
    other.tasks.watched.clock = desk.tasks.watched.clock
    for _ in range(220):
        desk.watch(10)
        other.due()
    assert desk.state() == "e"
    for _ in range(150):
        desk.watch(10)
        other.due()
    assert desk.state() == ""
    other.store.close()


def test_a_sweep_that_begins_late_forgets_nothing_early(desk: Desk) -> None:
    desk.watch(100)
    desk._watched += HOUR
    _ended(desk)
    desk.watch(3590)
    assert desk.state() == "e"


# -- what is left of an ended task ------------------------------------------------------------------------------------


def test_of_an_ordinary_task_only_the_id_is_left_and_it_still_says_completed(desk: Desk) -> None:
    _ended(desk)

    assert desk.store.live() == {"records": 0, "due": 0, "dead_letters": 0, "remembered": 1}
    record = desk.record()
    assert (record.state, record.status, record.sticky) == ("e", "completed", True)


@pytest.mark.parametrize("what", ["crash", "failure"])
def test_what_was_not_ordinary_is_still_told(desk: Desk, what: str) -> None:
    if what == "crash":
        desk.crash("w0")
    else:
        desk.fail(desk.run("w0"), retry=True, delay=0)
    claim = desk.claim("w1", seen=desk.published())
    desk.commit(claim.fence)
    desk.settle(claim.fence, confirmed=True)

    record = desk.record()
    assert (record.status, record.crashes, record.attempt) == ("completed", int(what == "crash"), int(what != "crash"))


def test_a_remembered_id_answers_every_call_as_an_ended_task(desk: Desk) -> None:
    overtaken = desk.run("w0")
    claim = desk.claim("w1", seen=overtaken + 5)
    desk.commit(claim.fence, "w1")
    desk.settle(claim.fence, confirmed=True)  # Seen twice: remembered although it is confirmed.
    assert desk.store.live()["records"] == 0

    assert desk.claim("w2").verdict is Verdict.SETTLED
    assert desk.claim("w2", seen=claim.fence + 100).verdict is Verdict.SETTLED
    assert not desk.commit(overtaken, "w0")
    assert desk.fail(overtaken, "w0") == "refused"
    assert not desk.tasks.discard("w0", desk.sending(), overtaken, "skipped")
    assert not desk.tasks.discard("w0", desk.sending(), 0, "skipped")
    assert not desk.tasks.hand_over("w0", desk.sending(), overtaken, "drain")
    assert not desk.tasks.adopt("w0", desk.sending(), claim.fence + 100)
    assert not desk.tasks.schedule(desk.sending(), 0)
    assert not desk.tasks.dead_letter(desk.sending(), "ActorNotFound", b"{}")
    assert [desk.tasks.hold("t", action, "me", SHARD)[0] for action in ("hold", "cancel", "release")] == ["ended"] * 3
    desk.tasks.settle([Settled("t", SHARD, claim.fence, True)])
    assert desk.store.live() == {"records": 0, "due": 0, "dead_letters": 0, "remembered": 1}
    assert desk.count("completed") == 1


def test_a_remembered_id_is_found_wherever_it_is(desk: Desk) -> None:
    _ended(desk)  # Its shard is not the one that its id says.
    assert desk.store.status("t") == "completed"
    assert desk.store.status("u") is None


def test_a_remembered_id_takes_little_memory(desk: Desk) -> None:
    def used() -> int:
        info = desk.client.info("memory")
        assert isinstance(info, dict)
        return int(info["used_memory"])

    before, tasks, ended = used(), 4000, []
    for i in range(tasks):
        task = f"{i:08x}-0000-4000-8000-{i:012x}"
        fence = desk.run(task=task)
        desk.commit(fence, task=task)
        ended.append(Settled(task, SHARD, fence, False))
    desk.tasks.settle(ended)
    assert desk.store.live()["remembered"] == tasks
    assert (used() - before) / tasks < 170
