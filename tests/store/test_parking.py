"""Tasks that nobody can run: parked at no cost, let out when somebody comes, given up when nobody has their actor."""

from __future__ import annotations

import pytest

from relier.store import Lot, Parking, Verdict
from tests.store.desk import SECOND, SHARD, Desk

GRACE, LONGEST = 60.0, 600.0


NO_CONSUMER = Parking("no consumer")
UNKNOWN = Parking("unknown actor", GRACE, b"failure")
NEWER = Parking("newer version", GRACE, b"failure")


def park(desk: Desk, why: Parking = NO_CONSUMER, task: str = "t") -> set[str]:
    """Park what is due."""
    return desk.tasks.park([(due, why) for due in desk.due() if due.task_id == task], LONGEST)


def unpark(desk: Desk, version: int = 1) -> int:
    """Empty the lot; returns how many are due."""
    while desk.tasks.unpark(Lot(SHARD, "default", "act", version)):
        pass
    return len(desk.due())


def lots(desk: Desk) -> list[Lot]:
    return desk.tasks.lots([SHARD, SHARD + 1])


# -- no consumer ------------------------------------------------------------------------------------------------------


def test_a_task_whose_queue_nobody_consumes_is_parked_and_says_why(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)

    assert park(desk) == set()

    assert (desk.record().reason, desk.record().published) == ("no consumer", 0)
    assert desk.count("parked") == 1
    desk.wait(LONGEST - 0.001)
    assert desk.due() == []
    assert lots(desk) == [Lot(SHARD, "default", "act")]


def test_a_parked_task_is_due_as_soon_as_somebody_comes(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    park(desk)

    assert unpark(desk) == 1

    assert [due.task_id for due in desk.due()] == ["t"]
    assert lots(desk) == []
    desk.published()
    assert desk.record().reason == ""


def test_a_parked_task_is_looked_at_again_even_if_its_lot_is_lost(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    park(desk)
    desk.client.delete(desk.store.keys.lots(SHARD), desk.store.keys.lot(SHARD, "default\nact"))
    desk.wait(LONGEST)
    assert [due.task_id for due in desk.due()] == ["t"]
    park(desk)
    assert desk.count("parked") == 1
    assert unpark(desk) == 1


def test_a_lot_lets_out_only_what_is_still_parked(desk: Desk) -> None:
    for task in ("cancelled", "held", "published", "parked"):
        desk.tasks.schedule(desk.sending(task), 0)
        park(desk, task=task)
    desk.tasks.hold("cancelled", "cancel", "somebody", SHARD)
    desk.tasks.hold("held", "hold", "somebody", SHARD)
    desk.wait(LONGEST)
    desk.published("published")

    desk.wait(-1)
    assert unpark(desk) == 1

    assert [due.task_id for due in desk.due()] == ["parked"]
    assert lots(desk) == []


def test_more_tasks_than_one_script_takes_are_let_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        desk.tasks.schedule(desk.sending(f"t{i}"), 0)
        park(desk, task=f"t{i}")
    with monkeypatch.context() as patch:
        patch.setattr("relier.store.sweeping.BATCH", 2)
        unpark(desk)
    assert len(desk.due()) == 5


def test_a_dead_letter_whose_hooks_find_no_consumer_keeps_its_reason(desk: Desk) -> None:
    desk.fail(desk.run(), hooks=True)
    desk.bury()
    assert park(desk) == set()
    assert desk.record().reason == "ValueError"
    assert desk.due() == []
    assert unpark(desk) == 1
    assert [due.state for due in desk.due()] == ["h"]


def test_a_task_that_moved_on_is_not_parked(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    (due,) = desk.due()
    desk.claim("w1", seen=due.fence)
    before = desk.record()
    assert desk.tasks.park([(due, UNKNOWN._replace(grace=0.0))], LONGEST) == set()
    assert desk.record() == before
    assert lots(desk) == []


# -- unknown actor ----------------------------------------------------------------------------------------------------


def test_a_task_whose_actor_nobody_has_becomes_a_dead_letter_after_the_grace(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    assert park(desk, UNKNOWN) == set()
    assert desk.record().reason == "unknown actor"
    desk.wait(GRACE - 0.001)
    assert desk.due() == []
    desk.wait(0.001)

    assert park(desk, UNKNOWN) == {"t"}

    record = desk.record()
    assert (record.state, record.reason, record.result, record.body) == ("d", "ActorNotFound", b"failure", b"body of t")
    assert (desk.due(), lots(desk)) == ([], [])
    assert desk.claim(seen=record.fence).verdict is Verdict.SETTLED


def test_a_dead_letter_of_an_unknown_actor_can_be_released_and_gets_the_grace_again(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    park(desk, UNKNOWN)
    desk.wait(GRACE)
    park(desk, UNKNOWN)

    desk.tasks.hold("t", "release", "somebody", SHARD)

    assert park(desk, UNKNOWN) == set()
    assert unpark(desk) == 1
    assert desk.claim(seen=desk.published()).verdict is Verdict.GRANTED


def test_the_grace_begins_anew_once_somebody_had_the_actor(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    park(desk, UNKNOWN)
    desk.wait(GRACE)
    stamp = desk.published()
    desk.tasks.decline("w1", desk.sending(), stamp)
    assert park(desk, UNKNOWN) == set()


def test_the_grace_does_not_run_while_nobody_consumes_the_queue(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    park(desk)
    desk.wait(LONGEST)
    assert park(desk, UNKNOWN) == set()


# -- newer than every worker's code ----------------------------------------------------------------------------------


def newer(desk: Desk, version: int = 2) -> None:
    desk.tasks.schedule(desk.sending(payload_version=version), 0)


@pytest.mark.parametrize("version", [2, 12])
def test_a_task_newer_than_every_workers_code_waits_in_the_lot_of_its_version(desk: Desk, version: int) -> None:
    newer(desk, version)
    assert desk.due()[0].payload_version == version

    assert park(desk, NEWER) == set()

    assert (desk.record().reason, desk.count("parked")) == ("newer version", 1)
    assert lots(desk) == [Lot(SHARD, "default", "act", version)]
    assert unpark(desk) == unpark(desk, version + 1) == 0
    assert unpark(desk, version) == 1
    assert lots(desk) == []


def test_a_task_newer_than_every_workers_code_becomes_a_dead_letter_only_after_the_grace(desk: Desk) -> None:
    newer(desk)
    park(desk, NEWER)
    desk.wait(GRACE - 0.001)
    assert desk.due() == []
    desk.wait(0.001)

    assert park(desk, NEWER) == {"t"}

    record = desk.record()
    assert (record.state, record.reason, record.result) == ("d", "SchemaMigrationError", b"failure")
    assert (record.attempt, record.crashes, lots(desk)) == (0, 0, [])


def test_the_grace_of_a_newer_version_begins_when_its_reason_does(desk: Desk) -> None:
    newer(desk)
    park(desk)
    desk.wait(LONGEST)
    assert park(desk, NEWER) == set()
    desk.wait(GRACE - 0.001)
    assert desk.due() == []


# -- decline ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", [0, 5])
def test_a_first_hand_or_lost_copy_that_is_declined_is_kept_and_due(desk: Desk, seen: int) -> None:
    """A fence that the store never gave was given before it lost its data."""
    assert desk.tasks.decline("w1", desk.sending(), seen and desk.wait(0) + SECOND)

    record = desk.record()
    assert (record.state, record.body, record.sticky) == ("s", b"body of t", True)
    assert (desk.count("accepted"), desk.count("declined")) == (1, 1)
    assert desk.claim("w1", seen=0).verdict is Verdict.STALE
    assert desk.claim("w2", seen=desk.published()).verdict is Verdict.GRANTED


def test_a_published_copy_that_is_declined_is_published_again_at_once(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    stamp = desk.published()
    assert desk.due() == []

    for _ in range(2):  # the second time after a lost reply
        assert desk.tasks.decline("w1", desk.sending(), stamp)

    (due,) = desk.due()
    assert due.fence > stamp
    assert (due.published, desk.count("declined")) == (0, 1)


def decline(desk: Desk) -> float:
    """Decline a published copy; returns after how many seconds the task is due again."""
    assert desk.tasks.decline("w1", desk.sending(), desk.published())
    before = desk.wait(0)
    while not desk.due():
        desk.wait(0.25)
    return (desk.wait(0) - before) / SECOND


def test_a_task_that_is_declined_again_and_again_waits_longer_each_time(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    assert [decline(desk) for _ in range(9)] == [0, 0.25, 0.5, 1, 2, 4, 5, 5, 5]


def test_a_task_that_ran_or_was_parked_is_offered_at_once_when_it_is_declined_again(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    assert [decline(desk) for _ in range(3)] == [0, 0.25, 0.5]
    park(desk, UNKNOWN)
    unpark(desk)
    assert [decline(desk) for _ in range(3)] == [0, 0.25, 0.5]
    desk.fail(desk.claim(seen=desk.published()).fence, retry=True)
    desk.wait(60)
    assert [decline(desk) for _ in range(2)] == [0, 0.25]


def test_a_declined_copy_tells_the_version_that_its_record_lacks(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending(), 0)
    desk.tasks.decline("w1", desk.sending(payload_version=3), desk.published())
    assert desk.due()[0].payload_version == desk.record().payload_version == 3


def test_a_copy_of_a_task_that_runs_or_has_ended_changes_nothing_when_it_is_declined(desk: Desk) -> None:
    fence = desk.run("w1")
    assert desk.tasks.decline("w2", desk.sending(), 0)
    assert (desk.state(), desk.record().owner, desk.record().sticky) == ("r", "w1", True)
    desk.commit(fence)
    assert desk.tasks.decline("w2", desk.sending(), 0)
    assert (desk.state(), desk.count("declined")) == ("e", 0)


def test_a_copy_of_a_forgotten_task_is_not_revived_by_declining_it(desk: Desk) -> None:
    desk.run("w1", "other")
    assert desk.tasks.decline("w2", desk.sending(), desk.record("other").fence)
    assert desk.find() is None


def test_hooks_that_wait_for_an_owner_are_offered_to_somebody_else(desk: Desk) -> None:
    desk.commit(desk.run("w1"), hooks=True)
    desk.bury()
    stamp = desk.published()
    assert desk.tasks.decline("w2", desk.sending(), stamp)
    assert [due.state for due in desk.due()] == ["h"]
    assert desk.claim("w3", seen=stamp).verdict is Verdict.REPLAY


def test_a_dead_worker_can_decline_nothing(desk: Desk) -> None:
    desk.bury("w1")
    assert not desk.tasks.decline("w1", desk.sending(), 0)
    assert desk.find() is None


# -- ended while it is parked -----------------------------------------------------------------------------------------


def test_a_parked_task_that_is_discarded_leaves_its_lot_though_nobody_ever_comes(desk: Desk) -> None:
    desk.tasks.schedule_many([(desk.sending(task, payload_version=2), 0) for task in ("t", "u")])
    park(desk)
    park(desk, task="u")

    assert desk.tasks.hold("t", "cancel", "somebody", SHARD)[0] == "cancelled"
    assert [lot.version for lot in lots(desk)] == [2]
    assert desk.tasks.hold("u", "cancel", "somebody", SHARD)[0] == "cancelled"

    assert lots(desk) == []
    assert not [name for name in desk.key_names() if "lot" in name]
