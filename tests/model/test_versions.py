"""A task that is newer than some workers' code runs on a newer worker, or is held for as long as none is there."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.model.small import without
from tests.model.versions import NEW, OLD, Rules, World, explore

WORLDS = {
    "a deploy": World((OLD, OLD), starts=2, kills=2),
    "a rollback": World((OLD, NEW), starts=1, kills=2),
    "nobody dies": World((OLD, OLD), starts=3, kills=0),
    "nobody": World((), starts=3, kills=2),
}

#: rule → the world that shows why it is needed, and what goes wrong there.
NEEDED = {
    "decline": ("a deploy", "ran with the wrong shape"),
    "before_claim": ("a deploy", "a failure was counted"),
    "publish_to_knowing": ("a deploy", "published for nobody"),
    "look_again": ("a deploy", "dead-lettered for being early"),
    "open_lots": ("nobody dies", "kept waiting"),
    "grace_begins_anew": ("a rollback", "dead-lettered for being early"),
}


@pytest.mark.parametrize("world", WORLDS)
def test_with_all_rules_nothing_runs_with_the_wrong_shape_or_ends_early(world: str) -> None:
    result = explore(WORLDS[world])
    assert not result.broken, str(result)
    assert result.states > 50


@pytest.mark.parametrize("rule", NEEDED)
def test_without_the_rule_of_versions_there_is_a_counterexample(rule: str) -> None:
    world, broken = NEEDED[rule]
    assert explore(without(WORLDS[world], rule)).broken.startswith(broken)


def test_every_rule_of_versions_has_its_counterexample() -> None:
    assert set(NEEDED) == {field.name for field in fields(Rules)}
