"""Each dead-lettering is told once, whatever dies in between."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.model.notices import Rules, World, explore
from tests.model.small import without

WORLDS = {
    "kills": World(kills=3, lost_replies=0, releases=1),
    "kills alone": World(kills=5, lost_replies=0, releases=0),
    "lost replies": World(kills=1, lost_replies=2, releases=1),
    "releases": World(kills=1, lost_replies=1, releases=3),
    "a notice that fails": World(kills=1, lost_replies=1, releases=1, notice_fails=True),
}

#: rule → the world that shows why it is needed, and what goes wrong there.
NEEDED = {
    "one_step": ("kills alone", "not told"),
    "named_by_fence": ("releases", "not told"),
    "first_verdict": ("lost replies", "told twice"),
    "snapshot": ("releases", "told of what it cannot tell"),
    "quiet": ("a notice that fails", "a notice has a notice"),
}


@pytest.mark.parametrize("world", WORLDS)
def test_with_all_rules_each_death_is_told_once(world: str) -> None:
    result = explore(WORLDS[world])
    assert not result.broken, str(result)
    assert result.states > 20


@pytest.mark.parametrize("rule", NEEDED)
def test_without_the_rule_of_notices_there_is_a_counterexample(rule: str) -> None:
    world, broken = NEEDED[rule]
    assert explore(without(WORLDS[world], rule)).broken.startswith(broken)


def test_every_rule_of_notices_has_its_counterexample() -> None:
    assert set(NEEDED) == {field.name for field in fields(Rules)}
