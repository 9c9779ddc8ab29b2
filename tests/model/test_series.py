"""Three identical failures in a row end a task, no other ones do, and its hooks run."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.model.series import Rules, World, explore
from tests.model.small import without

WORLDS = {
    "one failure again and again": World(prints="a", faults=3),
    "two failures": World(),
    "two failures, many faults": World(faults=4),
    "no faults": World(prints="abc", faults=0),
}

#: rule → the world that shows why it is needed, and what goes wrong there.
NEEDED = {
    "repeated_is_counted_once": ("one failure again and again", "stopped after 'a'"),
    "row_in_record": ("one failure again and again", "goes on after 'aaa'"),
    "verdict_is_obeyed": ("no faults", "hooks never run"),
    "uncounted_changes_nothing": ("no faults", "goes on after"),
    "release_begins_anew": ("one failure again and again", "stopped after 'a'"),
}


@pytest.mark.parametrize("world", WORLDS)
def test_with_all_rules_exactly_identical_failures_end_a_task(world: str) -> None:
    result = explore(WORLDS[world])
    assert not result.broken, str(result)
    assert result.states > 50


@pytest.mark.parametrize("rule", NEEDED)
def test_without_the_rule_of_the_row_there_is_a_counterexample(rule: str) -> None:
    world, broken = NEEDED[rule]
    assert explore(without(WORLDS[world], rule)).broken.startswith(broken)


def test_every_rule_of_the_row_has_its_counterexample() -> None:
    assert set(NEEDED) == {field.name for field in fields(Rules)}
