"""The arithmetic of burn rates: the numbers of Google's SRE workbook, and what holds for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relier.slo import (
    LEAST_FAILURES,
    REFUSED,
    RULES,
    WINDOWS,
    Burn,
    Rule,
    Tally,
    allowed_rate,
    burns_of,
    success_tally,
    together,
)
from relier.store.objective import Objective


@dataclass(frozen=True)
class Row:
    actor: str
    counts: dict[str, int] = field(default_factory=dict)


def row(dead: int, completed: int, actor: str = "work", slow: int = 0) -> Row:
    return Row(actor, {"dead": dead, "completed": completed, "slow": slow})


def burn(failures_of: Mapping[str, tuple[int, int]], target: float = 0.999) -> Burn:
    """An objective with so many failures among so many tasks in each window."""
    rate = allowed_rate(target)
    tallies = {name: Tally(failed, all_, rate * all_) for name, (failed, all_) in failures_of.items()}
    return Burn("work", "success", target, tallies=tallies)


def everywhere(failed: int, all_: int) -> Burn:
    return burn(dict.fromkeys(WINDOWS, (failed, all_)))


@pytest.mark.parametrize(
    ("rate", "expected", "exhausted_after_days"),
    [("0.001", 1, 30), ("0.002", 2, 15), ("0.01", 10, 3), ("1", 1000, Fraction(30, 1000))],
)
def test_burn_rates_are_those_of_the_workbooks_table(
    rate: str, expected: int, exhausted_after_days: Fraction | int
) -> None:
    """Table 5-4: error rates against a target of 99.9 %, and how long a budget of 30 days lasts (1000: 43 minutes)."""
    tally = success_tally([row(round(float(rate) * 100_000), round((1 - float(rate)) * 100_000))], 0.999)
    assert tally.burn_rate == pytest.approx(expected)
    assert 30 / tally.burn_rate == pytest.approx(float(exhausted_after_days))


@pytest.mark.parametrize(("rule", "spent"), [*zip(RULES, (0.02, 0.05, 0.10), strict=True)])
def test_alerts_are_those_of_the_workbooks_recommended_parameters(rule: Rule, spent: float) -> None:
    """Table 5-8: 2 % of the budget in 1 h, 5 % in 6 h, 10 % in 3 d; short windows of a twelfth."""
    assert rule.factor * WINDOWS[rule.long] / WINDOWS["30d"] == pytest.approx(spent)
    assert WINDOWS[rule.short] * 12 == WINDOWS[rule.long]
    assert rule.severity == ("ticket" if rule.long == "3d" else "page")


@pytest.mark.parametrize("rule", RULES)
def test_an_alert_needs_the_long_window_and_its_confirmation(rule: Rule) -> None:
    bad, fine = round(rule.factor * 100) + 1, round(rule.factor * 100)  # of 100,000 tasks, at 0.1 % allowed
    over = burn({rule.long: (bad, 100_000), rule.short: (bad, 100_000)})
    assert over.alerts == [rule]
    at = burn({rule.long: (fine, 100_000), rule.short: (bad, 100_000)})
    assert not at.alerts, "exactly the factor is not above it"
    is_over = burn({rule.long: (bad, 100_000), rule.short: (fine, 100_000)})
    assert not is_over.alerts, "what burnt has stopped"


def test_a_page_outranks_a_ticket() -> None:
    assert everywhere(0, 1000).severity is None
    assert burn({"3d": (200, 100_000), "6h": (200, 100_000)}).severity == "ticket"
    assert everywhere(100, 1000).severity == "page"


def test_few_failures_wake_nobody_however_few_tasks_there_were() -> None:
    assert everywhere(1, 1).severity is None
    assert everywhere(1, 1).state == "burning"
    assert everywhere(LEAST_FAILURES["ticket"], 3).severity == "ticket"
    assert everywhere(LEAST_FAILURES["page"] - 1, 4).severity == "ticket"
    assert everywhere(LEAST_FAILURES["page"], 5).severity == "page"


def test_what_is_no_task_that_ended_by_itself_counts_for_nothing() -> None:
    counts = {"discarded": 50, "discarded:purged": 50, "crashes": 9, "retries": 9, "dead": 1, "completed": 999}
    assert success_tally([Row("work", counts)], 0.999)[:2] == (1, 1000)


def test_the_budget_left_is_what_thirty_days_allowed_less_what_failed() -> None:
    assert burn({"30d": (0, 10_000)}).budget_left == 1.0
    assert burn({"30d": (5, 10_000)}).budget_left == pytest.approx(0.5)
    assert burn({"30d": (30, 10_000)}).budget_left == pytest.approx(-2.0)
    assert burn({}).budget_left == 1.0


def test_each_actor_has_its_own_target_and_queues_of_one_are_summed() -> None:
    rows = {"1h": [row(1, 49, "mail"), row(1, 49, "mail"), row(2, 98, "pay")]}
    found = {b.actor: b for b in burns_of(rows, {"mail": Objective(target=0.9)}, 0.99)}
    assert found["mail"].burn_rate("1h") == pytest.approx(0.2)
    assert found["pay"].burn_rate("1h") == pytest.approx(2.0)
    assert together(found.values(), 0.99).tally("1h") == pytest.approx((4, 200, 11.0))


def test_a_latency_objective_counts_completed_tasks_that_were_slow() -> None:
    rows = {"1h": [row(7, 200, slow=4)]}
    success, latency = sorted(burns_of(rows, {"work": Objective(0.99, 2.5)}, 0.999), key=lambda b: b.kind)[::-1]
    assert (success.kind, success.tally("1h").failures) == ("success", 7)
    assert (latency.kind, latency.latency, latency.target) == ("latency", 2.5, 0.99)
    assert latency.tally("1h")[:2] == (4, 200)
    assert latency.burn_rate("1h") == pytest.approx(2.0)


def test_an_actor_without_tasks_is_there_when_it_promises_something() -> None:
    (found,) = burns_of({name: [] for name in WINDOWS}, {"rare": Objective(target=0.9)}, 0.999)
    assert (found.actor, found.state, found.budget_left) == ("rare", "idle", 1.0)
    assert not burns_of({"1h": [Row("", {"admitted": 5}), Row("work", {"accepted": 3})]}, {}, 0.999)


def test_refused_messages_have_a_name_of_their_own() -> None:
    (found,) = burns_of({name: [row(5, 0, "")] for name in WINDOWS}, {}, 0.999)
    assert (found.actor, found.state) == (REFUSED, "page")


def test_those_that_burn_fastest_come_first() -> None:
    rows = [row(0, 100, "fine"), row(3, 10_000, "slightly"), row(50, 100, "page"), row(1, 9, "few")]
    found = burns_of(dict.fromkeys(WINDOWS, rows), {}, 0.999)
    assert [b.actor for b in found] == ["page", "few", "slightly", "fine"]
    assert [b.state for b in found] == ["page", "burning", "ok", "ok"]


# -- properties -------------------------------------------------------------------------------------------------------

targets = st.integers(1, 99_999).map(lambda n: n / 100_000)
rows_of_one = st.lists(st.builds(row, st.integers(0, 10**6), st.integers(0, 10**6)), max_size=5)


@given(rows_of_one, targets)
def test_a_burn_rate_is_the_exact_quotient(rows: list[Row], target: float) -> None:
    failures = sum(r.counts["dead"] for r in rows)
    everything = failures + sum(r.counts["completed"] for r in rows)
    allowed = (1 - Fraction(str(target))) * everything
    expected = failures / allowed if everything else 0
    assert success_tally(rows, target).burn_rate == pytest.approx(float(expected), rel=1e-12)


@given(st.lists(st.builds(row, st.integers(0, 50), st.integers(0, 50), st.sampled_from("abc")), max_size=9), targets)
def test_together_everything_is_as_its_parts(rows: list[Row], target: float) -> None:
    """With one target for all, how tasks are spread over actors changes nothing."""
    whole = together(burns_of({"1h": rows}, {}, target), target).tally("1h")
    one = success_tally(rows, target)
    assert whole[:2] == one[:2]
    assert whole.burn_rate == pytest.approx(one.burn_rate)


@given(st.integers(0, 1000), st.integers(1, 1000), targets)
def test_one_failure_more_never_lowers_a_burn_rate_and_one_success_never_raises_it(
    failed: int, good: int, target: float
) -> None:
    rate = success_tally([row(failed, good)], target).burn_rate
    assert success_tally([row(failed + 1, good)], target).burn_rate > rate
    assert success_tally([row(failed, good + 1)], target).burn_rate <= rate


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), targets)
def test_without_enough_failures_there_is_no_alert(short: int, middle: int, long: int, target: float) -> None:
    """Windows contain each other: 5 m in 30 m in 1 h …"""
    failed = dict(zip(WINDOWS, (short, short, short + middle, short + middle, short + middle + long, 6), strict=True))
    found = burn({name: (n, n + 1) for name, n in failed.items()}, target)
    for rule in found.alerts:
        assert failed[rule.long] >= LEAST_FAILURES[rule.severity]
        assert failed[rule.short] > 0
