"""Tasks of every kind of actor stop at their third identical failure, and only then."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest

from relier import TaskContext, rl_actor
from relier.dead_letters import told
from relier.testing import Testing

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)

_numbers = itertools.count()
#: What the next run raises; every actor asks it.
_next: list[Callable[[], BaseException]] = []


def fail() -> None:
    raise _next[0]()


def declared(kind: str) -> Any:
    """Declare an actor that fails."""
    name = f"ship{next(_numbers)}"
    if kind == "plain":
        return dramatiq.actor(actor_name=name)(fail)
    if kind == "async":

        @rl_actor(actor_name=name)
        async def async_one() -> None:
            fail()

        return async_one
    if kind == "with context":

        @rl_actor(actor_name=name)
        def with_context(ctx: TaskContext) -> None:
            fail()

        return with_context
    if kind == "class":

        class Ship(dramatiq.GenericActor):
            class Meta:
                actor_name = name

            def perform(self) -> None:
                fail()

        return Ship
    return rl_actor(actor_name=name)(fail)


@pytest.fixture
def tasks(store_url: str) -> Iterator[Testing]:
    with Testing(fail_fast=False, redis_url=store_url) as tasks:
        yield tasks


def dead(tasks: Testing, actor: Any, error: Callable[[], BaseException]) -> dict[str, Any]:
    """Let a task fail until it is a dead letter; returns what is told of it."""
    _next[:] = [error]
    task_id = actor.send().message_id
    tasks.finish()
    record = tasks.store.record(task_id)
    assert record is not None
    return told(record)


@pytest.mark.parametrize("kind", ["plain", "sync", "async", "with context", "class"])
def test_a_task_that_fails_identically_runs_three_times(tasks: Testing, kind: str) -> None:
    ids = itertools.count(4711)
    letter = dead(tasks, declared(kind), lambda: ValueError(f"order {next(ids)} at {object()!r} has no 'amount'"))
    assert (letter["attempts"], letter["identical_failures"], letter["failure_kind"]) == (3, 3, "unclassified")
    assert letter["series"] == "Its last 3 failures were identical: trying again does not help."


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_task_that_fails_in_changing_ways_has_all_its_runs(tasks: Testing, kind: str) -> None:
    words = itertools.cycle(["amount", "address"])
    letter = dead(tasks, declared(kind), lambda: ValueError(f"the {next(words)} is missing"))
    assert (letter["attempts"], letter["identical_failures"], letter["series"]) == (6, 1, None)


def test_a_transient_series_that_ends_identically_says_so(tasks: Testing) -> None:
    ids = itertools.count()
    letter = dead(tasks, declared("sync"), lambda: ConnectionRefusedError(f"db{next(ids)}.internal:5432 refused"))
    assert (letter["attempts"], letter["identical_failures"], letter["failure_kind"]) == (21, 21, "transient")
    assert letter["series"].startswith("Its last 21 failures were transient and identical")


def test_a_failure_whose_cause_changes_is_another_one(tasks: Testing) -> None:
    causes = itertools.cycle([ValueError("the disk is full"), ValueError("the quota is used up")])

    def wrapped() -> BaseException:
        error = RuntimeError("it failed")
        error.__cause__ = next(causes)
        return error

    assert dead(tasks, declared("sync"), wrapped)["attempts"] == 6


@pytest.mark.parametrize("why", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_an_exception_that_cannot_tell_its_text_is_stopped_as_well(tasks: Testing, why: type[BaseException]) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise why("I will not tell")

    assert dead(tasks, declared("sync"), Mute)["attempts"] == 3
