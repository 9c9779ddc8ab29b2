"""The newest task under a job key wins and is never lost; no older one starts or completes after its push."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.model.job_keys import Rules, World, explore
from tests.model.small import without

WORLDS = {
    "calm": World(tasks=2),
    "deaths": World(tasks=2, crashes=1, deaths=1),
    "lost replies": World(tasks=2, replies=1, crashes=1),
    "retries": World(tasks=2, failures=1, crashes=1),
    "dead letters": World(tasks=2, letters=1, releases=1),
    "imported letters": World(tasks=2, letters=1, releases=1, imports=1),
    "retention": World(tasks=2, retentions=2),
    "rollback": World(tasks=2, rollbacks=1),
    "a dead letter and retention": World(tasks=2, letters=1, releases=1, retentions=1),
    "deaths and retention": World(tasks=2, crashes=1, deaths=1, retentions=1),
}

#: rule → the world that shows why it is needed, and what goes wrong there.
NEEDED = {
    "custody_first": ("calm", "an older one starts"),
    "one_step": ("calm", "two unended tasks"),
    "fences_out": ("calm", "an older one completes"),
    "due": ("deaths", "the newest is lost"),
    "joins": ("rollback", "two unended tasks"),
    "ranked": ("retention", "an older one starts"),
    "outlives": ("retention", "an older one starts"),
    "release_asks": ("imported letters", "two unended tasks"),
    "adoption_asks": ("rollback", "two unended tasks"),
    "repeatable": ("lost replies", "a task completes twice"),
}


@pytest.mark.parametrize("world", WORLDS)
def test_with_all_rules_the_newest_wins_and_is_never_lost(world: str) -> None:
    result = explore(WORLDS[world])
    assert not result.broken, str(result)
    assert result.states > 50


@pytest.mark.parametrize("rule", NEEDED)
def test_without_the_rule_of_a_job_key_there_is_a_counterexample(rule: str) -> None:
    world, promise = NEEDED[rule]
    assert explore(without(WORLDS[world], rule)).broken == promise


def test_every_rule_of_a_job_key_has_its_counterexample() -> None:
    assert set(NEEDED) == {field.name for field in fields(Rules)}
