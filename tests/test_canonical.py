"""The canonical form: equal values have equal bytes, different ones do not, and what has none is named."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import json
import pickle
import uuid
import zoneinfo
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relier.canonical import MAX_DEPTH, canonical_bytes

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


def nested(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )


#: The same examples in every run, without a limit to their time: a loaded machine must not make them fail.
steadily = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

JSON = nested(SCALARS)
OTHERS = (
    st.binary(max_size=8)
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.frozensets(st.integers() | st.text(), max_size=4)
)


def same(a: Any, b: Any) -> bool:
    """Whether an actor could tell two JSON values apart: 1, 1.0 and True are three."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


@steadily
@given(JSON)
def test_the_form_is_stable_under_json_round_trips(value: Any) -> None:
    first = canonical_bytes(value)
    assert canonical_bytes(json.loads(json.dumps(value))) == first
    assert canonical_bytes(json.loads(first)) == first


@steadily
@given(nested(SCALARS | OTHERS))
def test_the_form_is_stable_under_pickling(value: Any) -> None:
    assert canonical_bytes(pickle.loads(pickle.dumps(value))) == canonical_bytes(value)


@steadily
@given(JSON, JSON)
def test_different_values_have_different_bytes(a: Any, b: Any) -> None:
    assert (canonical_bytes(a) == canonical_bytes(b)) == same(a, b)


@steadily
@given(nested(SCALARS | OTHERS), JSON)
def test_what_json_lacks_is_never_taken_for_json(a: Any, b: Any) -> None:
    if canonical_bytes(a).startswith(b"\0"):
        assert canonical_bytes(a) != canonical_bytes(b)


@steadily
@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    assert canonical_bytes(dict(reversed(value.items()))) == canonical_bytes(value)


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


@pytest.mark.parametrize(
    ("value", "as_json"),
    [
        ((1, [2, (3,)]), b"[1,[2,[3]]]"),
        (collections.OrderedDict(b=1, a=2), b'{"a":2,"b":1}'),
        ([Colour.RED, Level.HIGH], b'["red",3]'),
        ({"é": "日本"}, '{"é":"日本"}'.encode()),
        ([1, 1.0, True, -0.0, 10**400], b"[1,1.0,true,-0.0,1" + b"0" * 400 + b"]"),
        ({}, b"{}"),
        (None, b"null"),
    ],
)
def test_values_have_the_bytes_of_sorted_compact_json(value: Any, as_json: bytes) -> None:
    assert canonical_bytes(value) == as_json


def test_kinds_that_json_lacks_are_told_apart() -> None:
    day, moment = datetime.date(2024, 1, 1), datetime.datetime(2024, 1, 1)
    paris = zoneinfo.ZoneInfo("Europe/Paris")
    values = [
        b"ab", bytearray(b"ab"), {1, 2}, ["set", ["1", "2"]], day, moment, moment.replace(tzinfo=datetime.UTC),
        moment.replace(tzinfo=paris), moment.replace(tzinfo=paris, fold=1), moment.time(), datetime.timedelta(1),
        decimal.Decimal("1.0"), decimal.Decimal("1.00"), uuid.UUID(int=1), str(uuid.UUID(int=1)),
        ["uuid", str(uuid.UUID(int=1))],
        [b"ab", 1], [[b"ab"], 1], {"list": [b"ab"]}, ["list", [b"ab"]], {"a": b""}, ["dict", {"a": b""}],
    ]  # fmt: skip
    assert len(set(map(canonical_bytes, values))) == len(values)
    assert canonical_bytes({1, 2}) == canonical_bytes(frozenset([2, 1]))


def deep(levels: int) -> list[Any]:
    value: list[Any] = [1]
    for _ in range(levels - 1):
        value = [value]
    return value


class Own:
    """A type of somebody's."""


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [0, float("nan")]}, "value['a'][1] is nan"),
        (float("-inf"), "value is -inf"),
        ([b"", float("inf")], "value[1] is inf"),
        ({"a": "\ud800"}, "value['a'] contains a lone surrogate"),
        ({"\udfff": 1}, "the key '\\udfff' of value contains a lone surrogate"),
        ({"a": {1: 2}}, "value['a'] has the key 1 of type int"),
        ({None: 1}, "value has the key None of type NoneType"),
        ([1, {"x": Own()}], "value[1]['x'] is of type Own"),
        ([10**5000], "value[0] is a whole number of more than 4300 digits"),
        (deep(MAX_DEPTH + 1), "value is nested too deeply: the limit is 500 levels"),
        ([{(): 1}], "value[0] has the key () of type tuple"),
        (datetime.datetime(2024, 1, 1, tzinfo=type("Zone", (datetime.tzinfo,), {})()), "time zone of type Zone"),
    ],
)
def test_what_has_no_stable_form_is_refused_by_its_place(value: Any, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        canonical_bytes(value)
    assert message in str(refused.value)


def test_the_name_given_begins_the_place() -> None:
    with pytest.raises(ValueError, match=r"^args\[0\]\['k'\] is nan"):
        canonical_bytes([{"k": float("nan")}], "args")


def test_the_deepest_nesting_that_is_allowed_has_a_form() -> None:
    assert canonical_bytes(deep(MAX_DEPTH)) == b"[" * MAX_DEPTH + b"1" + b"]" * MAX_DEPTH


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueError, match="nested"):
        canonical_bytes(value)


def test_text_that_contains_brackets_is_not_nesting() -> None:
    assert canonical_bytes("[" * 5000) == b'"' + b"[" * 5000 + b'"'
