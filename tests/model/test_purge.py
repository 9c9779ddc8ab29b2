"""After a purge nothing older runs, but what was running; nothing newer is touched; and nothing is lost on the way."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tests.model.purge import Rules, World, explore
from tests.model.small import without

CALM = World(deaths=0, kills=0, releases=0, older=0, expiries=0, set_back=0)

WORLDS = {
    "calm": CALM,
    "deaths": replace(CALM, deaths=1),
    "a killed purge": replace(CALM, kills=1),
    "a killed purge, and deaths": replace(CALM, kills=1, deaths=1),
    "a release": replace(CALM, releases=1, kills=1),
    "a second purge": replace(CALM, older=1),
    "an expiry": replace(CALM, expiries=1),
    "a clock that is set back": replace(CALM, set_back=1),
}

#: rule → the world that shows why it is needed, and what goes wrong there.
NEEDED = {
    "mark_checked": ("calm", "an old task ran"),
    "corrected": ("calm", "an old task ran"),
    "never_behind": ("calm", "a new task was purged"),
    "ahead": ("calm", "an old task ran"),
    "waits": ("calm", "a new task was purged"),
    "exempt": ("a release", "a released task was purged"),
    "from_its_writing": ("a release", "a released task was purged"),
    "store_first": ("a killed purge", "lost"),
    "once": ("calm", "two ends"),
    "runs_on": ("calm", "a running task was purged"),
    "newest": ("a second purge", "an old task ran"),
    "outlives": ("an expiry", "an old task ran"),
    "void_when_set_back": ("a clock that is set back", "a new task was purged"),
}


@pytest.mark.parametrize(
    "world", [pytest.param(world, marks=pytest.mark.slow if "and deaths" in world else ()) for world in WORLDS]
)
def test_with_all_rules_a_purge_keeps_what_it_promises(world: str) -> None:
    result = explore(WORLDS[world])
    assert not result.broken, str(result)
    assert result.states > 500


@pytest.mark.parametrize("rule", NEEDED)
def test_without_the_rule_of_a_purge_there_is_a_counterexample(rule: str) -> None:
    world, promise = NEEDED[rule]
    assert explore(without(WORLDS[world], rule)).broken == promise


def test_every_rule_of_a_purge_has_its_counterexample() -> None:
    assert set(NEEDED) == {field.name for field in fields(Rules)}


@pytest.mark.slow
def test_with_every_fault_at_once_a_purge_keeps_what_it_promises() -> None:
    assert not explore(World()).broken
