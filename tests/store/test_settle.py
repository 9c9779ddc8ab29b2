"""What settling forgets, and what it remembers (R5)."""

from __future__ import annotations

import pytest
import redis

from relier.store import Settled, Verdict
from tests.store.desk import SHARD, Desk


@pytest.mark.parametrize("hooks", [True, False])
def test_a_task_whose_only_copy_is_known_to_be_gone_is_forgotten(desk: Desk, hooks: bool) -> None:
    fence = desk.run()
    desk.commit(fence, hooks=hooks)

    desk.settle(fence, confirmed=True)

    assert desk.find() is None
    assert desk.store.live() == {"records": 0, "due": 0, "dead_letters": 0, "remembered": 0}


@pytest.mark.parametrize("hooks", [True, False])
def test_without_confirmation_the_id_is_kept_for_the_retention_time(desk: Desk, hooks: bool) -> None:
    fence = desk.run()
    desk.commit(fence, hooks=hooks, result=b"42")

    desk.settle(fence, confirmed=False)

    assert (desk.state(), desk.record().result, desk.record().body) == ("e", b"", b"")
    assert desk.claim("w2").verdict is Verdict.SETTLED
    desk.watch(3600)
    assert (desk.state(), desk.store.live()["remembered"]) == ("e", 1)
    desk.watch(30)
    assert (desk.state(), desk.store.live()["remembered"]) == ("", 0)


def test_a_task_that_was_ever_seen_twice_is_kept_even_if_confirmed(desk: Desk) -> None:
    fence = desk.run()
    desk.claim("w2")
    desk.commit(fence, hooks=True)
    desk.settle(fence, confirmed=True)
    assert desk.state() == "e"


def test_a_task_that_the_store_published_is_kept_even_if_confirmed(desk: Desk) -> None:
    desk.fail(desk.run(), retry=True)
    desk.wait(5)
    claim = desk.claim(seen=desk.published())
    desk.commit(claim.fence, hooks=True)
    desk.settle(claim.fence, confirmed=True)
    assert desk.state() == "e"


def test_a_settlement_that_waited_over_a_lost_connection_confirms_nothing(desk: Desk) -> None:
    """The server behind the next connection may have brought the copy back."""
    fence = desk.run()
    desk.commit(fence, hooks=True)
    settled = [Settled("t", SHARD, fence, True, desk.store.runner.generation)]
    desk.settle(fence - 1, confirmed=True)  # The connection is in use.
    desk.client.client_kill_filter(_type="normal", skipme=True)

    with pytest.raises(redis.ConnectionError):
        desk.tasks.settle(settled)
    desk.tasks.settle(settled)

    assert desk.state() == "e"


def test_settling_under_an_older_fence_changes_nothing(desk: Desk) -> None:
    fence = desk.run()
    desk.commit(fence, hooks=True)
    desk.bury()
    replay = desk.claim("w2", seen=desk.published())

    desk.settle(fence, confirmed=True)

    assert (desk.state(), desk.record().owner) == ("h", "w2")
    desk.settle(replay.fence, confirmed=True)
    assert desk.state() == "e"


@pytest.mark.parametrize("state", ["r", "s"])
def test_settling_a_task_that_has_not_ended_changes_nothing(desk: Desk, state: str) -> None:
    fence = desk.run()
    if state == "s":
        desk.fail(fence, retry=True)
    desk.settle(fence, confirmed=True)
    assert desk.state() == state


def test_settlements_ride_on_claims_and_commits(desk: Desk) -> None:
    fences = {task: desk.run(task=task) for task in ("a", "b", "c")}
    for task in ("a", "b"):
        desk.commit(fences[task], task=task, hooks=True)

    desk.claim(task="d", settled=[Settled("a", SHARD, fences["a"], True)])
    settled = [Settled("b", SHARD, fences["b"], False)]
    desk.tasks.commit("w1", desk.sending("c"), fences["c"], hooks=False, settled=settled)

    assert [desk.state(task) for task in "abcd"] == ["", "e", "e", "r"]


def test_hundreds_of_settlements_go_in_one_call(desk: Desk) -> None:
    fences = {f"t{i}": desk.run(task=f"t{i}") for i in range(250)}
    for task, fence in fences.items():
        desk.commit(fence, task=task, hooks=True)
    desk.tasks.settle(Settled(task, SHARD, fence, True) for task, fence in fences.items())
    assert desk.store.live()["records"] == 0


def test_forgotten_tasks_leave_nothing_behind_but_the_shards_own_keys(desk: Desk) -> None:
    for i in range(10):
        fence = desk.run(task=f"t{i}")
        desk.commit(fence, task=f"t{i}")
        desk.settle(fence, f"t{i}", confirmed=i % 2 == 0)
    desk.watch(3630)
    assert {key[-1] for key in desk.key_names()} == {"meta", "st"}
