"""What user code can know about the run it is part of."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import UnionType
from typing import Annotated, Any, Protocol, Self, Union, cast, get_args, get_origin

from relier.checkpoints import Checkpoint

__all__ = ["TaskContext", "accept_context", "context_parameter", "current_context", "task_context"]

#: A parameter of this name gets the context, whatever its annotation.
CONTEXT_NAME = "ctx"


#: `TaskContext` as an annotation whose names exist for type checkers only.
_CONTEXT_TEXT = re.compile(r"(typing\.)?(Optional\[)?([\w.]+\.)?TaskContext\]?(\s*\|\s*None)?")


class Run(Protocol):
    """What the context needs to know of a run."""

    @property
    def task_id(self) -> str: ...
    @property
    def actor_name(self) -> str: ...
    @property
    def args(self) -> tuple[Any, ...]: ...
    @property
    def kwargs(self) -> dict[str, Any]: ...
    @property
    def worker_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def crashes(self) -> int: ...
    @property
    def fence(self) -> int: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def message(self) -> Any: ...
    @property
    def checkpoint(self) -> Checkpoint | None: ...


@dataclass(frozen=True, slots=True)
class TaskContext:
    """One run of a task, as its own code sees it. Build one yourself to call an actor in a test."""

    task_id: str
    task_name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    worker_id: str = ""
    #: Failed attempts before this one: 0 in the first.
    attempt: int = 0
    #: How often the task was put back because the worker that ran it died.
    resurrection_count: int = 0
    #: Grows with every run: pass it to what you write to, and let that refuse a lower one.
    fence: int = 0
    #: The `metadata` option of the message.
    metadata: dict[str, Any] = field(default_factory=dict)
    started_at: datetime | None = None
    #: What the task kept by `set_partial`, in this run or an earlier one; None when nothing. Fetched when it is read.
    partial_result: Any = field(default=None, repr=False, compare=False)

    async def set_partial(self, data: Any) -> None:
        """Keep how far the work has come: the task's next run, should there be one, finds it as `partial_result`.

        Raises `StaleFenceError` when this run is no longer the task's, `CheckpointTooLargeError`, `TypeError` for what
        cannot be encoded, and `OSError` or `StoreError` when there is no room; the one before is still kept then.
        """
        held = _held(self)
        if isinstance(held, Checkpoint):
            await asyncio.to_thread(held.keep, data)
        else:
            object.__setattr__(self, "partial_result", data)

    def set_partial_sync(self, data: Any) -> None:
        """Do what `set_partial` does, for plain functions.

        Raises as that does, and `RuntimeError` on a thread with a running event loop.
        """
        held = _held(self)
        if not isinstance(held, Checkpoint):
            object.__setattr__(self, "partial_result", data)
            return
        if asyncio._get_running_loop() is not None:  # The public one raises, which would stand in every traceback.
            raise RuntimeError(
                "A checkpoint here would block the running event loop; use `await ctx.set_partial(...)`."
            )
        held.keep(data)

    @classmethod
    def of(cls, run: Run) -> Self:
        """Describe a run."""
        metadata = run.message.options.get("metadata")
        return cls(
            task_id=run.task_id,
            task_name=run.actor_name,
            args=run.args,
            kwargs=run.kwargs,
            worker_id=run.worker_id,
            attempt=run.attempt,
            resurrection_count=run.crashes,
            fence=run.fence,
            metadata=dict(metadata) if isinstance(metadata, dict) else {},
            started_at=run.started_at,
            partial_result=run.checkpoint,
        )


#: What a context holds: the checkpoint of its run, or what somebody who built it gave it.
_SLOT = vars(TaskContext)["partial_result"]


def _held(context: TaskContext) -> Any:
    return _SLOT.__get__(context)


def _partial_result(context: TaskContext) -> Any:
    held = _held(context)
    return held.value if isinstance(held, Checkpoint) else held


# A property, so that what is kept is fetched by those runs only that read it.
type.__setattr__(TaskContext, "partial_result", property(_partial_result, _SLOT.__set__))


def current_context() -> TaskContext | None:
    """Return the context of the running task, or None outside one."""
    from relier.lifecycle import current_run

    run = current_run()
    return None if run is None else TaskContext.of(run)


class _ContextProxy:
    """Stands for the context of whatever task is running."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # introspection must not end in a LookupError
        context = current_context()
        if context is None:
            raise LookupError(f"task_context.{name} was read outside a running task.")
        return getattr(context, name)

    def __repr__(self) -> str:
        return f"<task_context of {current_context()!r}>"


#: The context of the running task. Reading an attribute outside a task raises `LookupError`.
task_context = cast("TaskContext", _ContextProxy())


@dataclass(frozen=True, slots=True)
class ContextParameter:
    """The parameter of an actor's function that gets the context."""

    name: str
    #: Its place among the positional parameters; None when it is keyword-only.
    index: int | None
    optional: bool

    def fill(self, actor_name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Put the context in its place: returns the positional arguments, changes `kwargs`.

        A context that the caller passed stays. Raises `LookupError` where there is none to pass.
        """
        if self.name in kwargs:
            context = kwargs.pop(self.name)
        elif self._is_passed(args):
            return args
        else:
            context = current_context()
            if context is None and self.optional:
                return args
            if context is None:
                raise LookupError(
                    f"Actor {actor_name!r} takes the task's context as {self.name!r}, but no task is running."
                    f" To call it directly, pass one: {self.name}=TaskContext(task_id='…', task_name='…')."
                )
        if self.index is None or len(args) < self.index:
            kwargs[self.name] = context
            return args
        return (*args[: self.index], context, *args[self.index :])

    def _is_passed(self, args: tuple[Any, ...]) -> bool:
        return (
            self.index is not None
            and len(args) > self.index
            and isinstance(args[self.index], TaskContext | _ContextProxy)
        )


def context_parameter(fn: Callable[..., Any]) -> ContextParameter | None:
    """Find the parameter annotated `TaskContext`, else the one named `ctx`. Raises `ValueError` for two."""
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return None
    usable = [p for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    annotated = [p for p in usable if _means_context(p.annotation, fn)]
    if len(annotated) > 1:
        names = ", ".join(repr(p.name) for p in annotated)
        raise ValueError(f"Only one parameter can take the TaskContext, not {names}.")
    chosen = annotated or [p for p in usable if p.name == CONTEXT_NAME]
    if not chosen:
        return None
    (parameter,) = chosen
    index = None if parameter.kind is parameter.KEYWORD_ONLY else usable.index(parameter)
    return ContextParameter(parameter.name, index, parameter.default is not parameter.empty)


def accept_context(fn: Callable[..., Any], parameter: ContextParameter, actor_name: str) -> Callable[..., Any]:
    """Wrap an actor's function, `def` or `async def`, so that callers need not pass the context."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return fn(*parameter.fill(actor_name, args, kwargs), **kwargs)

    async def call_async(*args: Any, **kwargs: Any) -> Any:
        return await fn(*parameter.fill(actor_name, args, kwargs), **kwargs)

    wrapper = functools.update_wrapper(call_async if inspect.iscoroutinefunction(fn) else call, fn)
    # Whoever unwraps an actor to reach its coroutine function must not lose the context on the way.
    del wrapper.__wrapped__
    wrapper.__signature__ = inspect.signature(fn)  # type: ignore[attr-defined]
    return wrapper


def _means_context(annotation: Any, fn: Callable[..., Any]) -> bool:
    if isinstance(annotation, str):
        return _text_means_context(annotation, fn)
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return any(part is TaskContext for part in get_args(annotation))
    return annotation is TaskContext


def _text_means_context(text: str, fn: Callable[..., Any]) -> bool:
    """Evaluate one annotation by itself: others of the function may name things that exist for checkers only."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    try:
        annotation = eval(text, dict(getattr(inspect.unwrap(fn), "__globals__", {})))
    except Exception:
        return _CONTEXT_TEXT.fullmatch(text) is not None
    return not isinstance(annotation, str) and _means_context(annotation, fn)
