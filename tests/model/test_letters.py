"""A dead letter goes out as somebody who looked at it asked for, once for each time, and is never lost."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.model.letters import Rules, World, explore
from tests.model.small import without

WORLDS = {
    "calm": World(looks=3),
    "kills": World(looks=3, kills=2),
    "crashes": World(looks=2, crashes=3),
    "an import": World(looks=3, imports=1),
    "all of it": World(looks=3, kills=1, crashes=2, imports=1),
}

#: rule → the world that shows why it is needed, and what goes wrong there.
NEEDED: dict[str, tuple[str, str | tuple[str, ...]]] = {
    "meant": ("calm", "a death was let out that nobody looked at"),
    "one_step": ("kills", "lost"),
    "keeps_crashes": ("crashes", "ran without a release"),
    "remembered": ("calm", "ran without a release"),
    "known": ("an import", ("completed twice", "ran without a release")),
    "above": ("an import", "ran without a release"),
}


@pytest.mark.parametrize("world", WORLDS)
def test_with_all_rules_a_letter_goes_out_as_it_was_asked_for(world: str) -> None:
    result = explore(WORLDS[world])
    assert not result.broken, str(result)
    assert result.states > 20


@pytest.mark.parametrize("rule", NEEDED)
def test_without_the_rule_of_letters_there_is_a_counterexample(rule: str) -> None:
    world, broken = NEEDED[rule]
    assert explore(without(WORLDS[world], rule)).broken.startswith(broken)


def test_every_rule_of_letters_has_its_counterexample() -> None:
    assert set(NEEDED) == {field.name for field in fields(Rules)}
