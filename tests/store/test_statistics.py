"""What the store notes about tasks, and how it is read."""

from __future__ import annotations

import pytest

from relier.store.packed import unpack_counts
from relier.store.running_totals import RunningTotals
from relier.store.statistics import BOUNDS, Row
from tests.store.desk import SHARD, Desk


def rows(desk: Desk) -> dict[str, Row]:
    return {row.actor: row for row in desk.store.statistics.totals()}


def test_what_became_of_tasks_is_noted_by_queue_and_actor(desk: Desk) -> None:
    desk.commit(desk.run())
    desk.fail(desk.run(task="u"), task="u")

    (row,) = desk.store.statistics.totals()

    assert (row.queue, row.actor) == ("default", "act")
    assert dict(row.counts) == {"accepted": 2, "completed": 1, "failed": 1, "dead": 1, "dead:ValueError": 1}


@pytest.mark.parametrize(
    ("seconds", "bound"),
    [(0.0005, 0.001), (0.001, 0.001), (0.0011, 0.002), (2.048, 2.048), (2.049, 4.096), (9000, None)],
)
def test_a_run_is_in_the_bucket_of_its_length(desk: Desk, seconds: float, bound: float | None) -> None:
    fence = desk.run()
    desk.wait(seconds)
    desk.commit(fence)

    runs = rows(desk)["act"].runs

    bucket = len(BOUNDS) if bound is None else BOUNDS.index(bound)
    assert (runs.count, runs.counts[bucket], runs.sum) == (1, 1, seconds)


def test_nothing_is_lost_when_a_minute_is_over(desk: Desk) -> None:
    for _ in range(5):
        for task in ("t", "u"):
            desk.commit(desk.run(task=task), task=task)
            desk.watch(3700)  # Ended tasks are forgotten, so the same ids are others.
        desk.wait(61)
    assert rows(desk)["act"]["completed"] == 10 == desk.count("completed")


def test_windows_end_now(desk: Desk) -> None:
    desk.store.statistics.clock = desk.tasks.clock
    for n in range(3):
        desk.commit(desk.run(task=f"t{n}"), task=f"t{n}")
        desk.store.statistics.clock = desk.wait(120)

    found = desk.store.statistics.windows(60, 180, 300, 3600)

    assert [sum(row["completed"] for row in window) for window in found] == [0, 1, 2, 3]


def test_a_shard_is_read_with_its_counters(desk: Desk) -> None:
    desk.commit(desk.run())
    (shard,) = desk.store.statistics.shard_totals([SHARD])
    assert shard.counters["completed"] == shard.rows[0]["completed"] == 1


def test_totals_that_are_read_again_are_those_that_are_read_anew(desk: Desk) -> None:
    running = RunningTotals(desk.store)
    assert running.rows() == desk.store.statistics.totals() == []
    for task in ("t", "u"):
        desk.commit(desk.run(task=task), task=task)
        assert running.rows() == desk.store.statistics.totals() != []
    desk.wait(61)
    desk.fail(desk.run(task="v"), task="v")  # What was noted so far is rolled.
    assert running.rows() == desk.store.statistics.totals()
    desk.crash("w2", "w")
    assert running.rows() == desk.store.statistics.totals()


def test_totals_are_forgotten_with_the_store(desk: Desk) -> None:
    running = RunningTotals(desk.store)
    desk.commit(desk.run())
    assert running.rows()
    desk.client.flushall()
    assert running.rows() == []


@pytest.mark.parametrize(
    "table",
    [
        "{}",
        "{[1]=5}",
        "{[1]=5,[2]=300,[3]=70000}",
        "{[0]=29393939,[32]=1,[56]=1.5e15,[57]=2^40}",
        "{['dead:KeyError']=128,['" + "r" * 40 + "']=7,[2]=255}",
        "{[1]=-1,[9]=-200,[10]=-70000,[11]=-2^40}",
    ],
)
def test_what_scripts_pack_is_unpacked(desk: Desk, table: str) -> None:
    packed, flat = desk.client.eval(
        f"local t, flat = {table}, {{}} for k, v in pairs(t) do flat[#flat + 1] = tostring(k)"
        " flat[#flat + 1] = string.format('%.0f', v) end return {cmsgpack.pack(t), flat}",
        0,
    )
    expected = {key.decode(): int(n) for key, n in zip(flat[::2], flat[1::2], strict=True)}
    assert {str(code): n for code, n in unpack_counts(packed).items()} == expected
