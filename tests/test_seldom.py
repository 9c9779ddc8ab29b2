"""One thing is said once an interval, and what was said is not remembered without end."""

from __future__ import annotations

import time

import pytest

from relier.seldom import REMEMBERED, Seldom


def test_one_thing_is_said_once_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    says = Seldom(10)

    assert [says.may_say("a"), says.may_say("a"), says.may_say("a", 2)] == [True, False, True]
    now = 9.9
    assert not says.may_say("a")
    now = 10.0
    assert says.may_say("a")


def test_it_forgets_what_was_said_longest_ago() -> None:
    says = Seldom(10)
    says.may_say("first")
    for number in range(3 * REMEMBERED):
        assert says.may_say(number)

    assert len(says._said) == REMEMBERED
    assert says.may_say("first")
    assert not says.may_say(3 * REMEMBERED - 1)
