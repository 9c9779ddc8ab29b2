"""User code gets the context of its run by parameter and by proxy."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, Optional

import pytest

from relier import TaskContext, lifecycle, task_context
from relier.context import accept_context, context_parameter, current_context

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers

STARTED = datetime(2026, 1, 2, tzinfo=UTC)


def a_run(**changes: Any) -> SimpleNamespace:
    values = {
        "task_id": "t-1",
        "actor_name": "add",
        "args": (1, 2),
        "kwargs": {"k": 3},
        "worker_id": "w-1",
        "attempt": 2,
        "crashes": 1,
        "fence": 17,
        "started_at": STARTED,
        "checkpoint": None,
        "message": SimpleNamespace(options={"metadata": {"tenant": "a"}}),
    }
    return SimpleNamespace(**(values | changes))


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    run = a_run()
    monkeypatch.setattr(lifecycle, "current_run", lambda: run)
    yield run


def injected(fn: Any, *args: Any, **kwargs: Any) -> Any:
    parameter = context_parameter(fn)
    assert parameter is not None
    return accept_context(fn, parameter, "the_actor")(*args, **kwargs)


@pytest.mark.usefixtures("running")
def test_the_context_tells_the_run() -> None:
    assert current_context() == TaskContext(
        task_id="t-1",
        task_name="add",
        args=(1, 2),
        kwargs={"k": 3},
        worker_id="w-1",
        attempt=2,
        resurrection_count=1,
        fence=17,
        metadata={"tenant": "a"},
        started_at=STARTED,
    )


@pytest.mark.usefixtures("running")
def test_the_proxy_reads_the_running_task() -> None:
    assert task_context.task_id == "t-1"
    assert task_context.resurrection_count == 1
    assert "t-1" in repr(task_context)


def test_the_proxy_raises_lookup_error_outside_a_task() -> None:
    with pytest.raises(LookupError, match=r"task_context\.fence was read outside a running task"):
        _ = task_context.fence


def test_the_proxy_survives_introspection_outside_a_task() -> None:
    assert "task_context" in repr(task_context)
    assert inspect.unwrap(task_context) is task_context  # type: ignore[arg-type]
    assert copy.copy(task_context) is not None


@pytest.mark.parametrize("metadata", [None, "text", 3])
def test_foreign_metadata_is_ignored(running: SimpleNamespace, metadata: Any) -> None:
    running.message.options["metadata"] = metadata
    context = current_context()
    assert context is not None
    assert context.metadata == {}


def by_name(ctx, x):  # type: ignore[no-untyped-def]
    return ctx.task_id, x


def by_annotation(x: int, tc: TaskContext, y: int = 0) -> Any:
    return tc.task_id, x, y


def by_optional(x: int, tc: Optional[TaskContext] = None) -> Any:  # noqa: UP045
    return tc and tc.task_id, x


def by_union(x: int, *, tc: TaskContext | None) -> Any:
    return tc and tc.task_id, x


def by_annotated(tc: Annotated[TaskContext, "whatever"], x: int, /) -> Any:
    return tc.task_id, x


def beside_an_unknown_name(x: OnlyForCheckers, tc: TaskContext) -> Any:
    return tc.task_id, x


def annotated_next_to_ctx(ctx: int, tc: TaskContext) -> Any:
    return tc.task_id, ctx


def by_default(x: int, tc: TaskContext = task_context) -> Any:
    return tc.task_id, x


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    "fn",
    [
        by_name,
        by_annotation,
        by_optional,
        by_union,
        by_annotated,
        beside_an_unknown_name,
        annotated_next_to_ctx,
        by_default,
    ],
)
def test_the_parameter_is_filled_wherever_it_stands(fn: Any) -> None:
    assert injected(fn, 5)[:2] == ("t-1", 5)


@pytest.mark.usefixtures("running")
def test_keywords_positions_and_defaults_keep_their_places() -> None:
    assert injected(by_annotation, 5, 6) == ("t-1", 5, 6)
    assert injected(by_annotation, 5, y=6) == ("t-1", 5, 6)
    assert injected(by_annotation, x=5) == ("t-1", 5, 0)
    assert injected(by_name, x=5) == ("t-1", 5)
    assert injected(functools.partial(by_annotation, y=9), 5) == ("t-1", 5, 9)


@pytest.mark.usefixtures("running")
def test_async_functions_get_it_too_and_stay_async() -> None:
    async def job(x: int, ctx: TaskContext) -> tuple[str, int]:
        return ctx.task_id, x

    parameter = context_parameter(job)
    assert parameter is not None
    wrapped = accept_context(job, parameter, "job")
    assert inspect.iscoroutinefunction(wrapped)
    assert inspect.iscoroutinefunction(inspect.unwrap(wrapped))
    assert asyncio.run(inspect.unwrap(wrapped)(5)) == ("t-1", 5)


def test_a_caller_may_pass_its_own_context_outside_a_task() -> None:
    own = TaskContext(task_id="mine", task_name="test")
    assert injected(by_name, own, 5) == ("mine", 5)
    assert injected(by_name, 5, ctx=own) == ("mine", 5)
    assert injected(by_annotation, 5, own) == ("mine", 5, 0)
    assert injected(by_union, 5, tc=None) == (None, 5)


def test_a_direct_call_without_a_context_says_how_to_pass_one() -> None:
    with pytest.raises(LookupError, match=r"'the_actor' takes the task's context as 'ctx'.*ctx=TaskContext\("):
        injected(by_name, 5)


def test_an_optional_context_is_left_to_its_default_outside_a_task() -> None:
    assert injected(by_optional, 5) == (None, 5)


def test_other_parameters_are_no_context() -> None:
    def plain(x: int, context: dict[str, Any], y: list[TaskContext]) -> None: ...

    assert context_parameter(plain) is None
    assert context_parameter(print) is None


def test_two_contexts_are_refused() -> None:
    def greedy(a: TaskContext, b: TaskContext) -> None: ...

    with pytest.raises(ValueError, match="Only one parameter can take the TaskContext, not 'a', 'b'"):
        context_parameter(greedy)
