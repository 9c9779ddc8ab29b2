"""What a run leaves of its work: kept under its fence, carried to the next run, gone when the task has ended well."""

from __future__ import annotations

import pytest

from relier.errors import RunUnknownError, StaleFenceError, StoreError
from relier.store.checkpoints import Where, size_of
from tests.conftest import PrivateServers
from tests.store.desk import SHARD, Desk

FILE = b"0123456789abcdef.7.00ff"


def keep(desk: Desk, fence: int, data: bytes = b"half", where: Where = "s", worker: str = "w1", task: str = "t") -> str:
    return desk.store.checkpoints.keep(worker, desk.sending(task), fence, where, data)


def carried(desk: Desk, worker: str = "w2") -> bytes:
    """Return what the next run is told."""
    return desk.claim(worker, seen=desk.published()).checkpoint


def has_key(desk: Desk, task: str = "t") -> bool:
    return ["cp", task] in [name[-2:] for name in desk.key_names()]


def test_a_first_run_is_told_of_none(desk: Desk) -> None:
    assert desk.claim().checkpoint == b""


@pytest.mark.parametrize(
    ("where", "data", "told"), [("s", b"half", b"shalf"), ("k", b"x" * 5000, b"k5000"), ("f", FILE, b"f" + FILE)]
)
def test_the_next_run_is_told_after_a_crash_a_failure_and_a_hand_over(
    desk: Desk, where: Where, data: bytes, told: bytes
) -> None:
    keep(desk, desk.run(), data, where)
    desk.bury()
    claim = desk.claim("w2", seen=desk.published())
    assert claim.checkpoint == told
    desk.fail(claim.fence, "w2", retry=True)
    desk.wait(10)
    claim = desk.claim("w3", seen=desk.published())
    assert claim.checkpoint == told
    desk.tasks.hand_over("w3", desk.sending(), claim.fence, "shutdown")
    assert carried(desk, "w4") == told
    if where == "k":
        assert desk.store.checkpoints.read(SHARD, "t") == data
    assert size_of(desk.record().checkpoint) == {"s": 4, "k": 5000, "f": 7}[where]


def test_a_dead_letter_keeps_it_and_a_released_one_goes_on_from_it(desk: Desk) -> None:
    fence = desk.run()
    keep(desk, fence, b"x" * 600, "k")
    desk.fail(fence)
    assert (desk.state(), desk.record().checkpoint) == ("d", "k600")
    desk.tasks.hold("t", "release", "me", SHARD)
    assert carried(desk) == b"k600"
    assert desk.store.checkpoints.read(SHARD, "t") == b"x" * 600


@pytest.mark.parametrize("hooks", [True, False])
def test_a_commit_drops_it(desk: Desk, hooks: bool) -> None:
    fence = desk.run()
    keep(desk, fence, b"x" * 600, "k")
    assert has_key(desk)
    desk.commit(fence, hooks=hooks)
    assert desk.record().checkpoint == ""
    assert not has_key(desk)


def test_a_cancelled_dead_letter_drops_it(desk: Desk) -> None:
    fence = desk.run()
    keep(desk, fence, b"x" * 600, "k")
    desk.fail(fence)
    desk.tasks.hold("t", "cancel", "me", SHARD)
    assert not has_key(desk)


def test_a_discarded_task_drops_it(desk: Desk) -> None:
    fence = desk.run()
    keep(desk, fence, b"x" * 600, "k")
    desk.tasks.discard("w1", desk.sending(), fence, "skipped")
    assert not has_key(desk)


@pytest.mark.parametrize("how", ["failed", "dead", "handed over", "crashed", "committed", "ended with hooks"])
def test_a_run_that_is_over_keeps_nothing(desk: Desk, how: str) -> None:
    fence = desk.run()
    keep(desk, fence, b"before")
    if how in ("failed", "dead"):
        desk.fail(fence, retry=how == "failed")
    elif how == "handed over":
        desk.tasks.hand_over("w1", desk.sending(), fence, "shutdown")
    elif how == "crashed":
        desk.bury()
    else:
        desk.commit(fence, hooks=how == "ended with hooks")
    with pytest.raises(StaleFenceError, match="Task t has moved on"):
        keep(desk, fence, b"after")
    assert desk.record().checkpoint == ("" if how in ("committed", "ended with hooks") else "s6")
    assert desk.count("refused") == 1


def test_an_overtaken_run_overwrites_nothing(desk: Desk) -> None:
    fence = desk.run()
    desk.bury()
    taken = desk.claim("w2", seen=desk.published())
    keep(desk, taken.fence, b"new", worker="w2")
    with pytest.raises(StaleFenceError):
        keep(desk, fence, b"old")
    desk.bury("w2")
    assert carried(desk, "w3") == b"snew"


def test_a_file_is_told_once_it_is_of_no_use_any_more(desk: Desk) -> None:
    fence = desk.run()
    assert keep(desk, fence, b"small") == ""
    assert keep(desk, fence, FILE, "f") == ""
    assert keep(desk, fence, FILE, "f") == ""  # A reply was lost: it is the same call.
    assert keep(desk, fence, b"other.8.00ff", "f") == "f" + FILE.decode()
    assert keep(desk, fence, b"small") == "fother.8.00ff"


def test_a_smaller_one_takes_the_key_of_a_larger_one_away(desk: Desk) -> None:
    fence = desk.run()
    keep(desk, fence, b"x" * 600, "k")
    keep(desk, fence, b"small")
    assert not has_key(desk)
    assert desk.record().checkpoint == "s5"


def test_it_is_known_where_files_are_of_use(desk: Desk) -> None:
    keep(desk, desk.run(task="a"), FILE, "f", task="a")
    keep(desk, desk.run(task="b"), b"small", task="b")
    desk.run(task="c")
    assert desk.store.checkpoints.where(SHARD, ["a", "b", "c", "d"]) == ["f" + FILE.decode(), "s", "", ""]


def test_after_a_rollback_of_the_store_the_run_is_adopted_and_its_checkpoint_kept(desk: Desk) -> None:
    fence = desk.run()
    desk.client.flushall()
    keep(desk, fence, b"half")
    assert (desk.state(), desk.record().checkpoint) == ("r", "s4")


def test_a_run_that_is_unknown_keeps_nothing(desk: Desk) -> None:
    fence = desk.run()
    desk.client.flushall()
    desk.run(task="other")
    with pytest.raises(RunUnknownError):
        keep(desk, fence)


def test_without_memory_it_is_refused_and_the_one_before_stays(private_server: PrivateServers) -> None:
    server = private_server("embedded", maxmemory="20mb")
    with server.client() as client:
        desk = Desk(client)
        fence = desk.run()
        keep(desk, fence, b"before")
        client.config_set("maxmemory", "1mb")
        with pytest.raises(StoreError, match="out of memory"):
            keep(desk, fence, b"after")
        assert desk.commit(fence)
        assert desk.count("refused") == 0
        desk.store.runner.close()


def test_the_first_folder_that_is_proposed_is_the_stores(desk: Desk) -> None:
    assert desk.store.fleet.checkpoint_folder() == ""
    assert desk.store.fleet.checkpoint_folder("one") == "one"
    assert desk.store.fleet.checkpoint_folder("two") == "one"
