"""The life cycle holds with all rules on, and each rule is needed: without it the search finds a counterexample."""

from __future__ import annotations

import os
from dataclasses import fields, replace

import pytest

from tests.model.rules import Rules
from tests.model.scenarios import LARGE, MEDIUM, SMALL
from tests.model.search import search

WORLDS = SMALL | MEDIUM | LARGE
DEEP = LARGE if os.environ.get("RELIER_MODEL_DEEP") else {}

TWICE, STUCK = "a task has two ends", "the task is stuck"
STOLEN, SHARED = "a live run was stolen", "one grant runs twice at once"

#: rule → the world that shows why it is needed, what goes wrong there, and a line of the trace that does it.
NEEDED = {
    "nonce": ("beats", SHARED, "claims copy 0: granted 3"),
    "fence_at_commit": ("false death", STOLEN, "W1 commits 1: accepted"),
    "durable_custody": ("two servers, rollback and failure", STUCK, "the store loses its last writes"),
    "fenced_copy_kept": ("false death", STUCK, "W1 skips: acknowledges copy 0"),
    "give_back": ("two servers, rollback and failure", STUCK, "W1 fails 1: unknown"),
    "decline_entrusts": ("mixed fleet", STUCK, "W1 fetches copy 0"),
    "ack_bound": ("one server, rollback and failure", STUCK, "the store loses its last writes"),
    "durable_registration": ("starting", STUCK, "W1' is killed"),
    "confirmed_only": ("amqp", TWICE, "W1 acknowledges copy 0, unconfirmed"),
    "sticky": ("false death", TWICE, "W2 settles 3: forgotten"),
    "sticky_follow_up": ("follow-up", TWICE, "the first-hand copy is enqueued again"),
    "drop_disconnected": ("one server, rollback and failure", TWICE, "W1 claims copy 0: granted 2"),
    "doubt_after_loss": ("one server, rollback and failure", TWICE, "W1 settles 1: forgotten"),
    "doubt_after_repeat": ("late requests", TWICE, "the delayed claim of W1 arrives: granted"),
    "ended_is_final": ("one server, rollback, false death, one crash", TWICE, "W2 claims copy 2: granted 3"),
    "floor_guards_lost": ("one server, rollback and failure", TWICE, "W1 commits 1: accepted"),
    "dead_set": ("false death", TWICE, "W1 claims copy 0: granted 2"),
    "atomic_burial": ("false death", STUCK, "the runs of W1 are due"),
    "bury_before_return": ("false death", TWICE, "messages of W1 return"),
    "hooks_pending": ("crashes", STUCK, "W1 is killed"),
    "beat_snapshot": ("beats", STOLEN, "W1 takes an empty snapshot"),
    "beat_counts": ("clocks", STOLEN, "the server's clock is set back"),
    "local_before_claim": ("beats", STOLEN, "W1 claims copy 0: granted 1, reply lost"),
    "beat_frees_hooks": ("one server, rollback and failure", STUCK, "W1 settles 1: forgotten"),
    "time_goes_on": ("clocks, lost copies", STUCK, "the server's clock is set back"),
    "watched_retention": ("clocks, amqp", TWICE, "the server's clock is set ahead"),
    "draining_returns": ("drain", STUCK, "W1 lets go of copy 0"),
    "leaving_is_buried": ("drain", STUCK, "W1 leaves the fleet"),
    "return_unheld": ("one server, rollback and failure", STUCK, "the store loses its last writes"),
}


@pytest.mark.parametrize("world", [*SMALL, *(pytest.param(world, marks=pytest.mark.slow) for world in MEDIUM), *DEEP])
def test_with_all_rules_a_task_ends_once_whatever_happens(world: str) -> None:
    result = search(WORLDS[world])

    assert not result.broken, str(result)
    assert result.states > 1000


@pytest.mark.parametrize("rule", NEEDED)
def test_without_the_rule_there_is_a_counterexample(rule: str) -> None:
    world, broken, line = NEEDED[rule]

    result = search(replace(WORLDS[world], rules=replace(Rules(), **{rule: False})))

    assert result.broken == broken, str(result)
    assert any(line in step for step in result.trace), str(result)
    assert len(result.trace) < 20


def test_every_rule_has_its_counterexample() -> None:
    assert set(NEEDED) == {field.name for field in fields(Rules)}
