"""A cancelled task never runs again, nobody else is interrupted, and each rule for that is needed."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.model.cancelling import Rules, World, explore
from tests.model.small import without

WORLDS = {
    "code that ends": World(losses=1, crashes=2, failures=1),
    "code that never ends": World(losses=1, crashes=2, endless=True),
}
#: The world in which the absence of a rule shows, and as what.
NEEDED = {
    "noted": ("code that never ends", "ran again"),
    "failure_ends": ("code that ends", "dead letter"),
    "sweep_ends": ("code that ends", "ran again"),
    "beats_tell": ("code that never ends", "stuck"),
    "shut": ("code that ends", "another task"),
    "at_once": ("code that ends", "another task"),
    "cleared": ("code that ends", "another task"),
}


@pytest.mark.parametrize("name", WORLDS)
def test_what_is_cancelled_never_runs_again_and_nobody_else_is_interrupted(name: str) -> None:
    result = explore(WORLDS[name])
    assert not result.broken, str(result)
    assert result.states > 50


@pytest.mark.parametrize("rule", NEEDED)
def test_without_a_rule_it_breaks(rule: str) -> None:
    name, how = NEEDED[rule]
    assert how in explore(without(WORLDS[name], rule)).broken


def test_every_rule_is_tried() -> None:
    assert set(NEEDED) == {field.name for field in fields(Rules)}
