"""A process that comes back under the host name and the process id of a dead one: nothing confuses the two."""

from __future__ import annotations

from relier.process import new_identity
from relier.store import Verdict
from tests.store.desk import Desk


def test_two_processes_of_one_name_have_two_identities() -> None:
    identities = {new_identity() for _ in range(100)}
    assert len(identities) == 100
    assert len({identity.rpartition(":")[0] for identity in identities}) == 1


def test_the_old_one_is_declared_dead_and_buried_without_the_new_one(desk: Desk) -> None:
    old, new = (f"pod-0:7:{random}" for random in ("0a0a0a0a0a", "0b0b0b0b0b"))
    fleet = desk.store.fleet
    fleet.register(old, {"broker_id": "b-old"})
    lost = desk.run(old, "t")
    fleet.register(new, {"broker_id": "b-new"})
    kept = desk.run(new, "u")

    assert fleet.declare_dead(old)
    desk.bury(old)

    assert fleet.beat(old).answer == "gone"
    assert fleet.beat(new).answer == "ok"
    assert fleet.workers().keys() == {new}
    assert (desk.state("t"), desk.state("u")) == ("s", "r")
    assert desk.claim(old, "v").verdict is Verdict.FENCED
    again = desk.claim(new, "t", desk.published("t"))
    assert again.verdict is Verdict.GRANTED
    assert not desk.commit(lost, old, "t")
    assert desk.commit(again.fence, new, "t")
    assert desk.commit(kept, new, "u")


def test_the_new_one_may_come_before_the_old_one_is_missed(desk: Desk) -> None:
    old, new = (f"pod-0:7:{random}" for random in ("0a0a0a0a0a", "0b0b0b0b0b"))
    desk.run(old)
    # The broker gave the dead one's message to the new one at once.
    assert desk.claim(new).verdict is Verdict.BUSY
    desk.bury(old)
    assert desk.commit(desk.claim(new, seen=desk.published()).fence, new)
