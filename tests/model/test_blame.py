"""Poison ends after 1 + max_resurrections runs, and no innocent task becomes a dead letter by it."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.model.blame import Rules, World, explore
from tests.model.small import without

POISON, INNOCENT = True, False

WORLDS = {
    "one poison": World(((POISON, 4), (INNOCENT, 4), (INNOCENT, 1)), processes=2),
    "one poison, with every limit the same": World(((POISON, 2), (INNOCENT, 2), (INNOCENT, 2)), processes=2),
    "two poisons": World(((POISON, 2), (POISON, 2), (INNOCENT, 2))),
    "three poisons": World(((POISON, 2), (POISON, 1), (POISON, 3), (INNOCENT, 1), (INNOCENT, 2)), threads=5),
    "poison that may run once": World(((POISON, 0), (POISON, 2), (INNOCENT, 1), (INNOCENT, 3))),
}

#: rule → the world that shows why it is needed, and what goes wrong there.
NEEDED = {
    "count_bystanders": ("three poisons", "poison ran"),
    "one_suspect": ("one poison", "1 poison tasks took an innocent one down 3 times"),
    "last_alone": ("two poisons", "an innocent task was dead-lettered"),
}


@pytest.mark.parametrize("world", WORLDS)
def test_with_all_rules_poison_is_bounded_and_the_innocent_complete(world: str) -> None:
    result = explore(WORLDS[world])
    assert not result.broken, str(result)
    assert result.states > 50


@pytest.mark.parametrize("rule", NEEDED)
def test_without_the_rule_of_blame_there_is_a_counterexample(rule: str) -> None:
    world, broken = NEEDED[rule]
    assert explore(without(WORLDS[world], rule)).broken.startswith(broken)


def test_every_rule_of_blame_has_its_counterexample() -> None:
    assert set(NEEDED) == {field.name for field in fields(Rules)}
