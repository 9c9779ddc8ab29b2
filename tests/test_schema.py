"""Payload migrations: in sequence, whole or not at all, and what can never run is named."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from dramatiq.middleware import SkipMessage
from hypothesis import given
from hypothesis import strategies as st

from relier import SchemaMigrationError, SchemaRegistry
from relier.schema import Arguments, Migrations, Unusable

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYWORDS = st.dictionaries(st.sampled_from("abcdef"), JSON, max_size=4)
ARGUMENTS = st.tuples(st.lists(JSON, max_size=3).map(tuple), KEYWORDS)


def renamed(old: str, new: str) -> Callable[..., Any]:
    def migration(*args: Any, **kwargs: Any) -> Any:
        if old in kwargs:
            kwargs[new] = kwargs.pop(old)
        return args, kwargs

    return migration


def spread(*args: Any, **kwargs: Any) -> Any:
    """Positional arguments become keyword arguments."""
    return {**kwargs, **{f"p{i}": value for i, value in enumerate(args)}}


def noted(note: Any) -> Callable[..., Any]:
    def migration(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            if isinstance(value, list):
                value.append(note)  # In place, as careless code would.
        return [*args, note], kwargs

    return migration


STEPS = st.one_of(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")).map(lambda names: renamed(*names)),
    st.just(spread),
    st.integers().map(noted),
)


def chain(*steps: Callable[..., Any], first: int = 1) -> Migrations:
    """Return migrations of `act` from version `first` on."""
    migrations = Migrations()
    for version, step in enumerate(steps, first):
        migrations.add("act", version, step)
    return migrations


# -- composing --------------------------------------------------------------------------------------------------------


@given(st.lists(STEPS, min_size=1, max_size=6), ARGUMENTS, st.data())
def test_migrations_compose(steps: list[Callable[..., Any]], sent: Arguments, data: st.DataObject) -> None:
    """From any version to any later one in one go, or by way of any version in between: the same arguments."""
    migrations, last = chain(*steps), len(steps) + 1
    start = data.draw(st.integers(1, last))
    end = data.draw(st.integers(start, last))
    between = data.draw(st.integers(start, end))

    at_once = migrations.apply("act", *sent, start, end)

    half_way = migrations.apply("act", *sent, start, between)
    assert migrations.apply("act", *half_way, between, end) == at_once
    by_hand: Any = copy.deepcopy(sent)
    for step in steps[start - 1 : end - 1]:
        found = step(*by_hand[0], **by_hand[1])
        by_hand = (tuple(found[0]), found[1]) if isinstance(found, tuple) else ((), found)
    assert by_hand == at_once


@given(st.lists(STEPS, min_size=1, max_size=6), ARGUMENTS)
def test_what_was_sent_stays_as_it_was_so_each_run_migrates_the_same(
    steps: list[Callable[..., Any]], sent: Arguments
) -> None:
    migrations, before = chain(*steps), json.dumps(sent)
    first = json.dumps(migrations.apply("act", *sent, 1, len(steps) + 1))
    assert json.dumps(sent) == before
    assert json.dumps(migrations.apply("act", *sent, 1, len(steps) + 1)) == first


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.data())
def test_a_path_is_taken_whole_or_not_at_all(there: list[bool], data: st.DataObject) -> None:
    """A task with a gap before it fails before any step runs, and tells which is missing."""
    taken: list[int] = []
    migrations = Migrations()

    def taking(version: int) -> Callable[..., Any]:
        def migration() -> dict[str, Any]:
            taken.append(version)
            return {}

        return migration

    for version, exists in enumerate(there, 1):
        if exists:
            migrations.add("act", version, taking(version))
    start = data.draw(st.integers(1, len(there) + 1))
    missing = [version for version in range(start, len(there) + 1) if not there[version - 1]]

    if not missing:
        migrations.apply("act", (), {}, start, len(there) + 1)
        assert taken == list(range(start, len(there) + 1))
    else:
        with pytest.raises(SchemaMigrationError, match=f"from payload version {missing[0]} to {missing[0] + 1}:"):
            migrations.apply("act", (), {}, start, len(there) + 1)
        assert taken == []


def test_arguments_of_the_expected_version_pass_as_they_are() -> None:
    args: tuple[Any, ...] = ([1],)
    kwargs: dict[str, Any] = {"a": {}}
    found = Migrations().apply("act", args, kwargs, 2, 2)
    assert found[0] is args
    assert found[1] is kwargs


# -- one step ---------------------------------------------------------------------------------------------------------


def test_a_migration_has_the_parameters_of_its_version_however_they_were_passed() -> None:
    def split(name: str, age: int = 7) -> dict[str, Any]:
        first, last = name.split()
        return {"first": first, "last": last, "age": age}

    expected = {"first": "Ada", "last": "Lovelace", "age": 7}
    migrations = chain(split)
    assert migrations.apply("act", ("Ada Lovelace",), {}, 1, 2) == ((), expected)
    assert migrations.apply("act", (), {"name": "Ada Lovelace"}, 1, 2) == ((), expected)


@pytest.mark.parametrize("returned", [None, [], 7, "ab", ((), {}, 1), ({}, {}), ((), []), ((), {1: 2}), {1: 2}])
def test_what_is_no_arguments_is_refused(returned: Any) -> None:
    with pytest.raises(
        SchemaMigrationError, match="of 'act' from payload version 1 failed: TypeError: a migration returns"
    ):
        chain(lambda: returned).apply("act", (), {}, 1, 2)


def test_a_failing_migration_says_which_and_why() -> None:
    def old(name: str) -> dict[str, Any]:
        raise KeyError(name)

    with pytest.raises(SchemaMigrationError, match="of 'act' from payload version 2 failed: KeyError: 'x'") as caught:
        chain(spread, old).apply("act", (), {"name": "x"}, 1, 3)
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(SchemaMigrationError, match=r"TypeError: .*unexpected keyword argument 'other'"):
        chain(old).apply("act", (), {"other": 1}, 1, 2)


def test_a_migration_may_say_that_a_task_is_not_wanted_any_more() -> None:
    def old() -> Any:
        raise SkipMessage("Nobody needs it.")

    with pytest.raises(SkipMessage):
        chain(old).apply("act", (), {}, 1, 2)


# -- registering ------------------------------------------------------------------------------------------------------


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Migrations:
    """The process's migrations, empty."""
    fresh = Migrations()
    monkeypatch.setattr("relier.schema.migrations", fresh)
    return fresh


def test_a_registered_migration_stays_a_plain_function_and_can_be_tried(registered: Migrations) -> None:
    @SchemaRegistry.register_migration("resize", from_version=1)
    def from_1(width: int) -> dict[str, Any]:
        return {"width": width, "height": width}

    assert from_1(3) == {"width": 3, "height": 3}
    assert SchemaRegistry.migrate("resize", (3,), from_version=1, to_version=2) == ((), {"width": 3, "height": 3})
    assert SchemaRegistry().migrate("resize", kwargs={"width": 3}, from_version=2, to_version=2) == ((), {"width": 3})


@pytest.mark.parametrize("version", [0, -1, 1.0, "1", True, None])
def test_versions_are_whole_numbers_from_1(registered: Migrations, version: Any) -> None:
    with pytest.raises(ValueError, match="Migration of 'resize': from_version is a whole number from 1, not"):
        SchemaRegistry.register_migration("resize", version)(spread)


def test_a_second_migration_from_the_same_version_is_refused(registered: Migrations) -> None:
    SchemaRegistry.register_migration("resize", 1)(spread)
    SchemaRegistry.register_migration("resize", 2)(spread)
    with pytest.raises(
        ValueError, match=r"'resize' has a migration from version 1 already: tests\.test_schema\.spread\."
    ):
        SchemaRegistry.register_migration("resize", 1)(noted(1))


def test_a_coroutine_function_is_refused(registered: Migrations) -> None:
    async def old() -> dict[str, Any]:
        return {}

    with pytest.raises(
        TypeError, match="Migration of 'resize' from version 1: a plain function, with `def`, is wanted"
    ):
        SchemaRegistry.register_migration("resize", 1)(old)  # type: ignore[type-var]


def test_migrations_that_can_never_run_are_named_with_the_reason() -> None:
    migrations = chain(spread, first=1)
    for version in (3, 4, 5):
        migrations.add("act", version, spread)
    migrations.add("gone", 1, spread)

    assert list(migrations.unusable({"act": 5, "other": 1})) == [
        Unusable("act", 1, "no migration leads on from version 2"),
        Unusable("act", 5, "the actor's schema_version is 5, so nothing older than that needs it"),
        Unusable("gone", 1, "no actor of this name is declared"),
    ]
    assert list(chain(spread, spread).unusable({"act": 3})) == []
