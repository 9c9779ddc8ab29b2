"""Within a key's time at most one run completes, and no task that waits for the key is stranded."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tests.model.idempotency import Rules, World, explore
from tests.model.small import without

#: With room for everybody in the list, nobody needs the slow look.
PROMPT = World(places=9, rules=Rules(looked_at_again=False))

WORLDS = {
    "calm": World(tasks=4),
    "deaths": World(tasks=3, crashes=2),
    "cancelled tasks": World(tasks=4, cancels=2),
    "an owner that nobody can run": World(tasks=3, crashes=1, parked=1),
    "a forgotten owner": World(tasks=3, forgotten=1),
    "an expired key": World(tasks=3, crashes=1, expiries=1),
    "prompt": replace(PROMPT, tasks=4, expiries=1),
    "prompt, with cancelled tasks": replace(PROMPT, tasks=4, cancels=2),
    "prompt, with deaths": replace(PROMPT, crashes=2, parked=1),
    "everything once": World(tasks=3, crashes=1, cancels=1, parked=1, forgotten=1, expiries=1),
}

#: rule → the world that shows why it is needed, and what goes wrong there.
NEEDED = {
    "one_step": ("calm", "two runs completed"),
    "fenced": ("deaths", "two runs completed"),
    "from_death": ("calm", "two runs completed"),
    "claim_stops_it": ("deaths", "two runs completed"),
    "owner_asks_too": ("deaths", "two runs completed"),
    "passed_on": ("prompt", "stranded"),
    "as_owner": ("prompt, with cancelled tasks", "stranded"),
    "noted": ("prompt", "stranded"),
    "in_flight_watched": ("prompt, with deaths", "stranded"),
    "looked_at_again": ("calm", "stranded"),
    "owner_is_there": ("a forgotten owner", "stranded"),
}


@pytest.mark.parametrize("world", WORLDS)
def test_with_all_rules_one_run_completes_and_nobody_is_stranded(world: str) -> None:
    result = explore(WORLDS[world])
    assert not result.broken, str(result)
    assert result.states > 50


@pytest.mark.parametrize("rule", NEEDED)
def test_without_the_rule_of_a_key_there_is_a_counterexample(rule: str) -> None:
    world, promise = NEEDED[rule]
    assert explore(without(WORLDS[world], rule)).broken == promise


def test_every_rule_of_a_key_has_its_counterexample() -> None:
    assert set(NEEDED) == {field.name for field in fields(Rules)}
