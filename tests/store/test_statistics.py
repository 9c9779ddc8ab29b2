"""What the store notes about tasks, and how it is read."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from relier.store.packed import unpack_counts
from relier.store.running_totals import RunningTotals
from relier.store.scripts import script
from relier.store.statistics import (
    BOUNDS,
    DAYS_KEPT,
    HOURS_KEPT,
    MINUTES_KEPT,
    OTHER,
    RESURRECTIONS,
    RUN_TIMES,
    SHORT,
    WAITS,
    Row,
)
from tests.store.desk import NOW, SECOND, SHARD, Desk


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


def waits(desk: Desk) -> tuple[int, float]:
    found = rows(desk)["act"].waits
    return found.count, found.sum


def test_a_first_hand_copy_waits_from_its_push(desk: Desk) -> None:
    desk.run(created=NOW / SECOND - 3)
    count, total = waits(desk)
    assert (count, round(total, 3)) == (1, 3)


@pytest.mark.parametrize("marked", [True, False], ids=["published", "claimed before it was marked"])
def test_a_retry_waits_from_when_it_was_due(desk: Desk, marked: bool) -> None:
    desk.fail(desk.run(), retry=True, delay=5)
    desk.wait(6)
    seen = desk.published() if marked else desk.record().fence
    desk.wait(1.5)
    desk.claim("w2", seen=seen)
    assert waits(desk) == (1, 2.5)


def test_an_orphan_waits_and_is_resurrected_from_when_its_owner_was_buried(desk: Desk) -> None:
    desk.run("w1")
    desk.wait(100)
    desk.bury("w1")
    desk.wait(0.5)
    seen = desk.published()
    desk.wait(0.25)
    desk.commit(desk.claim("w2", seen=seen).fence, "w2")

    row = rows(desk)["act"]

    assert (row.resurrections.count, row.resurrections.sum) == (1, 0.75)
    assert waits(desk) == (1, 0.75)
    assert (row["crashes"], row["resurrections"], row.runs.count) == (1, 1, 1)


def test_a_task_that_is_handed_over_is_no_resurrection(desk: Desk) -> None:
    desk.tasks.hand_over("w1", desk.sending(), desk.run("w1"), "drain")
    desk.wait(2)
    desk.claim("w2", seen=desk.published())
    assert rows(desk)["act"].resurrections.count == 0
    assert waits(desk) == (1, 2)


def test_what_is_read_again_when_a_clock_is_set_back_is_added_to_the_same_minute(desk: Desk) -> None:
    desk.commit(desk.run(task="a"), task="a")
    desk.wait(120)
    desk.commit(desk.run(task="b"), task="b")
    desk.wait(-120)
    desk.commit(desk.run(task="c"), task="c")
    desk.wait(3600)
    desk.commit(desk.run(task="d"), task="d")
    desk.store.statistics.clock = desk.wait(-3590)

    assert rows(desk)["act"]["completed"] == 4 == desk.count("completed")
    minute: Any = desk.client.hgetall(desk.store.keys.statistics(SHARD, f"m:{NOW // SECOND // 60}"))
    assert unpack_counts(minute[b"default\nact"])[2] == 2


def test_periods_expire(desk: Desk) -> None:
    for task in ("a", "b"):
        desk.commit(desk.run(task=task), task=task)
        desk.wait(60)
    keys = [desk.store.keys.statistics(SHARD, f"{name}:{NOW // SECOND // length}") for name, length in PERIODS.items()]
    for (name, length), key in zip(PERIODS.items(), keys, strict=True):
        kept = {"m": MINUTES_KEPT, "h": HOURS_KEPT, "d": DAYS_KEPT}[name]
        assert kept - 60 <= desk.client.ttl(key) <= kept + length
    assert desk.client.ttl(desk.store.keys.statistics(SHARD)) == -1


PERIODS = {"m": 60, "h": 3600, "d": 86_400}


def test_what_is_older_than_its_time_leaves_no_period(desk: Desk) -> None:
    desk.run(task="a")
    desk.wait(40 * 86_400)
    desk.run(task="b")
    assert rows(desk)["act"]["accepted"] == 2
    assert {key[-1] for key in desk.key_names() if "st" in key} == {"st", "all"}


def test_reasons_are_bounded_and_none_goes_back(desk: Desk) -> None:
    seen: dict[str, int] = {}
    for i in range(40):
        task = f"t{i}"
        desk.run(task=task)
        desk.tasks.discard("w1", desk.sending(task), desk.record(task).fence, f"reason {i % 35}")
        desk.wait(20)
        counts = rows(desk)["act"].counts
        assert all(counts[name] >= n for name, n in seen.items())
        seen = dict(counts)
    reasons = {name: n for name, n in seen.items() if name.startswith("discarded:")}
    assert (len(reasons), sum(reasons.values())) == (31, 40)
    assert reasons["discarded:other"] > 0


def fill(desk: Desk, entries: int) -> None:
    """Note something of many actors, as they would."""
    source = """
      for i = 1, tonumber(ARGV[2]) do
        redis.call('HSET', KEYS[1], 'default\\n' .. i, cmsgpack.pack({ [0] = tonumber(ARGV[1]), [1] = 1, [2] = 1 }))
      end
      redis.call('HINCRBY', KEYS[2], 'accepted', ARGV[2])
      redis.call('HINCRBY', KEYS[2], 'completed', ARGV[2])
    """
    keys = desk.store.keys
    assert desk.tasks.clock is not None
    minute = desk.tasks.clock // SECOND // 60
    desk.client.eval(source, 2, keys.statistics(SHARD), keys.shard(SHARD, "")[2], minute, entries)


def test_there_is_room_for_a_bounded_number_of_actors(desk: Desk) -> None:
    fill(desk, 500)
    desk.commit(desk.run())
    assert rows(desk)[OTHER]["completed"] == 1
    assert "act" not in rows(desk)


def test_actors_that_said_nothing_for_long_make_room(desk: Desk) -> None:
    fill(desk, 500)
    desk.wait(32 * 86_400)
    desk.commit(desk.run())
    found = rows(desk)
    assert found["act"]["completed"] == 1
    assert found[OTHER]["completed"] == 50
    assert sum(row["completed"] for row in found.values()) == 501 == desk.count("completed")


def test_an_actor_whose_task_waits_keeps_its_place(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending("late"), 100 * 86_400)
    fill(desk, 499)
    desk.wait(32 * 86_400)
    desk.tasks.schedule(replace(desk.sending("other"), actor="another"), 1)
    found = rows(desk)
    assert (found["act"]["accepted"], found["another"]["accepted"]) == (1, 1)


def test_the_codes_of_python_are_those_of_the_scripts() -> None:
    source = script("claim").source
    short = re.search(r"local SHORT = \{(.*?)\}", source)
    firsts = re.search(r"local WAITS, RUN_TIMES, RESURRECTIONS = (.*)", source)
    assert short
    assert firsts
    assert dict(re.findall(r"(\w+) = (\d+)", short[1])) == {name: str(code) for code, name in SHORT.items()}
    assert firsts[1] == f"{WAITS}, {RUN_TIMES}, {RESURRECTIONS}"
    assert f"k = math.min(part > 0.5 and exponent or exponent - 1, {len(BOUNDS)})" in source
    assert f"return first + k, 1, first + {len(BOUNDS) + 1}, took" in source
    periods = f"{{ ':m:', 1, {MINUTES_KEPT} }}, {{ ':h:', 60, {HOURS_KEPT} }}, {{ ':d:', 1440, {DAYS_KEPT} }}"
    assert periods in source


def test_periods_can_be_forgotten(desk: Desk) -> None:
    for seconds in (5 * 3600, 70 * 3600, 30 * 86_400, 61):
        desk.commit(desk.run(task=f"t{seconds}"), task=f"t{seconds}")
        desk.wait(seconds)
    desk.run()
    desk.store.statistics.clock = desk.tasks.clock

    desk.store.statistics.forget_periods()

    assert sum(row["accepted"] for row in desk.store.statistics.windows(31 * 86_400)[0]) == 1
    assert rows(desk)["act"]["accepted"] == 5
