"""Failures that differ in values only have one fingerprint; all others have another."""

from __future__ import annotations

import importlib.util
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relier import fingerprints
from relier.fingerprints import KEPT, READ, fingerprint, normalised

ACTOR = "act"


def raised(call: Callable[..., Any], *args: Any) -> BaseException:
    with pytest.raises(BaseException) as caught:
        call(*args)
    return caught.value


def fail(text: object, kind: type[BaseException] = ValueError) -> None:
    raise kind(text)


def printed(text: object, kind: type[BaseException] = ValueError, actor: str = ACTOR) -> str:
    return fingerprint(actor, raised(fail, text, kind))


# -- the text ---------------------------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(str),
    st.uuids().map(str),
    st.integers(0, 2**64).map(hex),
    st.binary(min_size=8, max_size=20).map(lambda b: b.hex()),
    st.builds(lambda i: repr(type("Thing", (), {})()) and f"0x{i:012x}", st.integers(0, 2**47)),
    st.ip_addresses(v=4).map(lambda ip: f"{ip}:6379"),
    st.ip_addresses(v=6).map(str).filter(lambda ip: any(c.isdigit() for c in ip)),
    st.datetimes().map(lambda at: at.strftime("%Y-%m-%dT%H:%M:%S.%f")),
    st.text(max_size=30).map(repr),
    st.binary(max_size=30).map(repr),
    st.from_regex(r"https?://[a-z]{1,9}\.example/[a-z/]{0,20}", fullmatch=True),
    st.from_regex(r"/(tmp|srv)/[a-z]{1,9}(/[a-z]{1,9}){0,3}", fullmatch=True),
    st.from_regex(r"[a-z]{1,9}(\.[a-z]{1,9})?@[a-z]{1,9}\.org", fullmatch=True),
)
TEMPLATES = st.sampled_from(
    [
        "no user {}",
        "user {} is gone",
        "{} failed",
        "at ({}), sadly",
        "id={} missing",
        "got [{}] and {{}}",
        "see {}; it's over",
    ]
)


@given(template=TEMPLATES, one=VALUES, other=VALUES)
def test_a_text_is_the_same_whatever_its_values(template: str, one: str, other: str) -> None:
    assert normalised(template.format(one)) == normalised(template.format(other))


@given(template=TEMPLATES, one=st.lists(VALUES, min_size=1, max_size=6), other=st.lists(VALUES, min_size=1, max_size=6))
def test_a_list_is_the_same_however_long_it_is(template: str, one: list[str], other: list[str]) -> None:
    assert normalised(template.format(", ".join(one))) == normalised(template.format(", ".join(other)))


@given(st.lists(st.from_regex(r"[a-z]{1,7}", fullmatch=True), min_size=1, max_size=20))
def test_words_without_values_are_left_alone(words: list[str]) -> None:
    assert normalised(" ".join(words)) == " ".join(words)[:KEPT]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a bytes-like object is required, not 'str'", "a bytes-like object is required, not #"),
        ("can't find user 17 (id=5f3a-99), isn't here", "can't find user # (id=#), isn't here"),
        ('<Order object at 0x7f12ab34cd56> has no "amount"', "<Order object at #> has no #"),
        ("connect to db7.internal:5432 timed out after 30.5s", "connect to # timed out after #"),
        ("missing ['a', 'b'] in {'x': 1, 'y': None}", "missing [#] in {#: None}"),
        ("unclosed 'quote here\nnext line", "unclosed # next line"),
        ("the users' data and/or N/A", "the users' data and/or N/A"),
        ("open /var/tmp/abc failed", "open # failed"),
        (r"b'\xff\'' is no name", "# is no name"),
        ("  many\n\t blanks ", "many blanks"),
        ("Zahl ٣٤ ist zu groß", "Zahl # ist zu groß"),
    ],
)
def test_values_are_recognised(text: str, expected: str) -> None:
    assert normalised(text) == expected


@given(st.text())
def test_any_text_is_bounded_and_normalising_it_twice_changes_nothing_about_values(text: str) -> None:
    once = normalised(text)
    assert len(once) <= KEPT
    assert not any(c.isdecimal() for c in once)


@pytest.mark.parametrize(
    "piece",
    ["'", "'\\", "(", " '", "#,", "# ", "/", "a/", "://", "a", "f", "`", "b'", "\\", "~/", "_", "0", "«", "\n", " w"],
)
def test_a_hostile_text_of_megabytes_is_read_up_to_a_bound_only(piece: str) -> None:
    hostile = piece * (4_000_000 // len(piece))
    assert normalised(hostile) == normalised(hostile[:READ])
    assert printed(hostile) == printed(hostile[:READ])


# -- what makes a difference, and what does not -----------------------------------------------------------------------


def test_actor_type_and_text_make_a_difference() -> None:
    same = printed("no user 1")
    assert same == printed("no user 22")
    others = {printed("no user 1", actor="other"), printed("no user 1", KeyError), printed("no order 1")}
    assert len(others | {same}) == 4


def test_it_is_short_and_the_same_in_every_process() -> None:
    assert fingerprint(ACTOR, ValueError("no user 1")) == "a69da4420f1cbb31"


def recurse(depth: int) -> None:
    if depth:
        recurse(depth - 1)
    raise ValueError("deep")


def elsewhere() -> None:
    raise ValueError("deep")


def test_the_way_to_the_failure_makes_a_difference_but_not_how_deep_a_recursion_went() -> None:
    assert fingerprint(ACTOR, raised(recurse, 3)) == fingerprint(ACTOR, raised(recurse, 30))
    assert fingerprint(ACTOR, raised(recurse, 3)) != fingerprint(ACTOR, raised(elsewhere))


@pytest.fixture
def module(tmp_path: Path) -> Iterator[Callable[[str, str], ModuleType]]:
    """Make a module of some source in some folder."""
    names = []

    def make(where: str, source: str) -> ModuleType:
        file = tmp_path / where
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
        name = file.stem
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec and spec.loader
        made = importlib.util.module_from_spec(spec)
        sys.modules[name] = made
        names.append(name)
        spec.loader.exec_module(made)
        return made

    yield make
    for name in set(names):
        del sys.modules[name]


SOURCE = "def work(fail):\n    fail()\n"


def test_lines_that_moved_make_no_difference(module: Callable[[str, str], ModuleType]) -> None:
    before = fingerprint(ACTOR, raised(module("app.py", SOURCE).work, elsewhere))
    moved = module("later/app.py", "\n# a comment\n\n" + SOURCE)
    assert fingerprint(ACTOR, raised(moved.work, elsewhere)) == before


def test_frames_of_libraries_make_no_difference_unless_the_actor_is_one_of_them(
    module: Callable[[str, str], ModuleType],
) -> None:
    library = module("lib/python3/site-packages/library.py", SOURCE)
    inside, outside = raised(library.work, elsewhere), raised(elsewhere)
    assert fingerprint(ACTOR, inside) == fingerprint(ACTOR, outside)
    assert fingerprint(ACTOR, inside, "library.tasks") != fingerprint(ACTOR, outside, "library.tasks")


def wrap(cause: BaseException, how: str) -> None:
    try:
        raise cause
    except BaseException as error:
        if how == "from":
            raise RuntimeError("wrapped") from error
        if how == "from none":
            raise RuntimeError("wrapped") from None
        raise RuntimeError("wrapped")  # noqa: B904


@pytest.mark.parametrize(("how", "differ"), [("from", True), ("implicit", True), ("from none", False)])
def test_what_was_wrapped_makes_a_difference_as_in_a_traceback(how: str, differ: bool) -> None:
    one = fingerprint(ACTOR, raised(wrap, ValueError("the disk"), how))
    other = fingerprint(ACTOR, raised(wrap, ValueError("the network"), how))
    assert (one != other) is differ
    assert one == fingerprint(ACTOR, raised(wrap, ValueError("the disk"), how))


def test_a_group_is_told_by_its_members_in_any_order() -> None:
    def group(*texts: str) -> str:
        return fingerprint(ACTOR, ExceptionGroup("g", [ValueError(text) for text in texts]))

    assert group("no a", "no b") == group("no b", "no a")
    assert group("no a", "no b") != group("no a", "no c")


# -- hostile exceptions -----------------------------------------------------------------------------------------------


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("I will not tell")


class Odd(ExceptionGroup):
    @property
    def exceptions(self) -> Any:
        raise RuntimeError("no members")


def test_an_exception_that_cannot_tell_its_text_has_a_fingerprint() -> None:
    assert fingerprint(ACTOR, Mute()) == fingerprint(ACTOR, Mute())
    assert fingerprint(ACTOR, Mute()) != fingerprint(ACTOR, Odd("odd", [ValueError()]))
    assert fingerprint(ACTOR, ValueError("\ud800 lone"))


def test_a_forest_of_exceptions_is_looked_at_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException] = []

    def tell(error: BaseException) -> str:
        told.append(error)
        return "text"

    monkeypatch.setattr(fingerprints, "text_of", tell)
    tree: Exception = ValueError("leaf")
    for _ in range(6):
        tree = ExceptionGroup("g", [tree] * 30)
    chain: BaseException = ValueError("first")
    for _ in range(1000):
        chain, before = ValueError("next"), chain
        chain.__cause__ = before
    loop = ValueError("loop")
    other = ValueError("other")
    loop.__cause__, other.__cause__ = other, loop

    for error in (tree, chain, loop):
        told.clear()
        assert fingerprint(ACTOR, error)
        assert len(told) <= fingerprints.EXCEPTIONS + 1


def test_ids_of_tasks_and_orders_make_no_difference() -> None:
    assert len({printed(f"order {uuid.uuid4()} of task {uuid.uuid4().hex}") for _ in range(50)}) == 1
