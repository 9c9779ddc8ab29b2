"""Limits that could not work are refused when an actor is declared, with the way out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from dramatiq.brokers.stub import StubBroker

from relier import rl_actor
from relier.failure_kinds import FailureKind, classify
from relier.timeouts import Limits, check_timeouts


@pytest.fixture
def broker() -> Iterator[StubBroker]:
    broker = StubBroker()
    broker.emit_after("process_boot")
    yield broker
    broker.close()


def refused(*, is_async: bool = True, **options: Any) -> str:
    with pytest.raises(ValueError) as caught:
        check_timeouts("act", is_async, options)
    return str(caught.value)


@pytest.mark.parametrize("name", ["soft_timeout", "hard_timeout", "on_soft_timeout"])
def test_plain_functions_are_told_what_to_do_instead(name: str) -> None:
    text = refused(is_async=False, **{name: 5})
    assert text.startswith("Timeout parameters are only supported for async functions.")
    assert "asyncio.to_thread" in text
    assert "time_limit" in text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"soft_timeout": 5}, "soft_timeout (5 s) needs a hard_timeout above it"),
        ({"soft_timeout": 5, "hard_timeout": 5}, "soft_timeout (5 s) must be below hard_timeout (5 s)"),
        ({"soft_timeout": 6.5, "hard_timeout": 5}, "soft_timeout (6.5 s) must be below hard_timeout (5 s)"),
        ({"hard_timeout": 0}, "hard_timeout is a number of seconds above 0, not 0"),
        ({"hard_timeout": float("inf")}, "hard_timeout is a number of seconds above 0, not inf"),
        ({"hard_timeout": float("nan")}, "hard_timeout is a number of seconds above 0, not nan"),
        ({"hard_timeout": True}, "hard_timeout is a number of seconds above 0, not True"),
        ({"hard_timeout": "5"}, "hard_timeout is a number of seconds above 0, not '5'"),
        ({"hard_timeout": 5, "on_soft_timeout": print}, "on_soft_timeout needs a soft_timeout"),
        ({"hard_timeout": 5, "soft_timeout": 1, "on_soft_timeout": 3}, "on_soft_timeout is a function"),
        (
            {"hard_timeout": 5, "soft_timeout": 1, "on_soft_timeout": lambda: None},
            "on_soft_timeout is called with the context alone",
        ),
        ({"time_limit": "a"}, "time_limit is a number of milliseconds above 0, or float('inf'), not 'a'"),
        ({"time_limit": 0}, "time_limit is a number of milliseconds above 0, or float('inf'), not 0"),
        ({"time_limit": None}, "time_limit is a number of milliseconds above 0, or float('inf'), not None"),
        ({"time_limit": float("nan")}, "time_limit is a number of milliseconds above 0, or float('inf'), not nan"),
    ],
)
def test_limits_that_could_not_work_are_refused(options: dict[str, Any], text: str) -> None:
    assert text in refused(**options)


@pytest.mark.parametrize("hook", [print, lambda *args: None, lambda ctx, more=1: None, dict])
def test_a_hook_that_can_be_called_with_the_context_is_taken(hook: Any) -> None:
    check_timeouts("act", True, {"hard_timeout": 5, "soft_timeout": 1, "on_soft_timeout": hook})


@pytest.mark.parametrize("is_async", [True, False])
def test_dramatiqs_word_for_no_time_limit_is_taken(is_async: bool) -> None:
    check_timeouts("act", is_async, {"time_limit": float("inf")})


def test_an_actor_keeps_its_limits(broker: StubBroker) -> None:
    def hook(ctx: Any) -> None: ...

    @rl_actor(broker=broker, soft_timeout=1, hard_timeout=2.5, on_soft_timeout=hook)
    async def act() -> None: ...

    assert Limits.of(act.options, {}) == Limits(2.5, 1, hook)


def test_a_callable_object_may_be_async(broker: StubBroker) -> None:
    class Act:
        async def __call__(self) -> None: ...

    actor: Any = rl_actor(Act(), broker=broker, actor_name="act", hard_timeout=2)
    assert Limits.of(actor.options, {}).hard == 2


@pytest.mark.parametrize("options", [{}, {"hard_timeout": 1}, {"time_limit": 1}])
def test_a_run_that_took_too_long_is_not_tried_again(options: dict[str, Any]) -> None:
    assert classify(Limits.of(options, {}).exceeded("act")) is FailureKind.DETERMINISTIC
