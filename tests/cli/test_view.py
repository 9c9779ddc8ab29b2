"""What `rl top` and `rl ui` tell of statistics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relier.store.statistics import BOUNDS, Histogram, Row
from relier_cli.top import fair
from relier_cli.view import Paced, length_of, quantile, rates_of

EMPTY = Histogram()


def histogram(**seconds: int) -> Histogram:
    """So many in the bucket of each bound, named in ms."""
    counts = [0] * (len(BOUNDS) + 1)
    for name, count in seconds.items():
        counts[-1 if name == "more" else BOUNDS.index(int(name[1:]) / 1000)] += count
    return Histogram(tuple(counts), 1.0)


def row(actor: str, queue: str = "default", runs: Histogram = EMPTY, **counts: int) -> Row:
    return Row(queue, actor, counts, EMPTY, runs, EMPTY)


def test_a_percentile_is_found_within_its_bucket() -> None:
    assert quantile(0.95, [histogram(_1=100)]) == pytest.approx(0.00095)
    assert quantile(0.5, [histogram(_1=50, _4=50)]) == pytest.approx(0.001)
    assert quantile(0.75, [histogram(_1=50), histogram(_4=50)]) == pytest.approx(0.003)
    assert quantile(0.95, [histogram(_1=1, more=99)]) == BOUNDS[-1]
    assert quantile(0.95, [EMPTY, EMPTY]) is None
    assert quantile(0.95, []) is None


@given(st.lists(st.integers(0, 1000), min_size=len(BOUNDS), max_size=len(BOUNDS)), st.floats(0.01, 1))
def test_a_percentile_is_never_outside_the_bucket_that_it_falls_into(counts: list[int], q: float) -> None:
    found = quantile(q, [Histogram((*counts, 0))])
    total = sum(counts)
    if not total:
        assert found is None
        return
    below = [sum(counts[: k + 1]) for k in range(len(counts))]
    bucket = next(k for k, n in enumerate(below) if counts[k] and n >= q * total)
    assert found is not None
    assert (0.0, *BOUNDS)[bucket] - 1e-6 <= found <= BOUNDS[bucket] + 1e-6


def test_rates_are_those_of_all_queues_of_an_actor_the_busiest_first() -> None:
    short = [row("mail", completed=20), row("mail", "other", completed=10, dead=3), row("pay", completed=60, failed=6)]
    long = [
        row("mail", completed=100, crashes=2),
        row("pay", runs=histogram(_4=9), completed=60),
        row("", "", admitted=5),
    ]
    pay, mail = rates_of(short, long, 30.0)
    assert (mail.actor, mail.completed, mail.dead, mail.counts["crashes"]) == ("mail", 1.0, 0.1, 2)
    assert (pay.actor, pay.completed, pay.failed, pay.p95_wait) == ("pay", 2.0, 0.2, None)
    assert pay.p95_run == pytest.approx(0.0039, abs=1e-4)


@given(st.floats(1.7e9, 1.9e9))
def test_a_window_begins_at_the_nearest_whole_minute(now: float) -> None:
    assert 30 <= length_of(now, 60.0) <= 90
    assert (now - length_of(now, 60.0)) % 60 == pytest.approx(0, abs=1e-5)


@given(st.integers(-5, 100), st.lists(st.integers(0, 40), max_size=6))
def test_lines_are_shared_out_to_the_last_and_nobody_gets_more_than_it_wants(room: int, wanted: list[int]) -> None:
    given_ = fair(room, wanted)
    assert all(0 <= n <= most for n, most in zip(given_, wanted, strict=True))
    assert sum(given_) == min(max(room, 0), sum(wanted))
    hungry = [n for n, most in zip(given_, wanted, strict=True) if n < most]
    assert not hungry or max(given_) <= max(hungry) + 1


def test_what_takes_long_to_look_at_is_looked_at_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = 100.0, 0

    def look() -> int:
        nonlocal now, looks
        looks += 1
        now += 2.0
        return looks

    monkeypatch.setattr("relier_cli.view.time.monotonic", lambda: now)
    paced = Paced(look, 1.0)
    assert [paced(), paced()] == [1, 1]
    now += 19.0  # It took 2 s, and may take a tenth of the time.
    assert paced() == 1
    now += 1.5
    assert paced() == 2
