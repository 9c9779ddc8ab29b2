"""`rl_actor`: Dramatiq's actors with Relier's promise, checked when they are declared."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar, overload

import dramatiq
import dramatiq.broker
from dramatiq.message import get_encoder

from relier.context import ContextParameter, accept_context, context_parameter
from relier.on_dead import check_on_dead
from relier.options import QUEUE_PRIORITIES, check_names, check_queue, check_values
from relier.payloads import check_size
from relier.receipts import TaskReceipt
from relier.settings import Settings, get_settings
from relier.templates import TEMPLATES, check_template
from relier.timeouts import check_timeouts

__all__ = ["RelierActor", "rl_actor"]

P = ParamSpec("P")
R = TypeVar("R")


class RelierActor(dramatiq.Actor[P, R]):
    """A Dramatiq actor that can also `push`, and that receives the task's context. Made by `rl_actor`."""

    #: The coroutine function of an async actor, context included; None for a sync one.
    async_fn: Callable[..., Awaitable[R]] | None
    #: The parameter that takes the context, if any.
    context_parameter: ContextParameter | None

    def __init__(
        self,
        fn: Callable[P, Awaitable[R]] | Callable[P, R],
        *,
        broker: dramatiq.Broker,
        actor_name: str,
        queue_name: str,
        priority: int,
        options: dict[str, Any],
    ) -> None:
        # Dramatiq's constructor already shows the actor to the middleware: everything of ours comes first.
        self.context_parameter = context_parameter(_signature_of(fn))
        call = _as_function(fn)
        if self.context_parameter is not None:
            call = accept_context(call, self.context_parameter, actor_name)
        self.async_fn = call if inspect.iscoroutinefunction(call) else None
        super().__init__(
            call,
            broker=broker,
            actor_name=actor_name,
            queue_name=queue_name,
            priority=priority,
            options=options,
        )

    def push(self, *args: P.args, **kwargs: P.kwargs) -> TaskReceipt:
        """Enqueue a task and return its receipt.

        Raises `RuntimeError` on a thread with a running event loop, `TypeError` for arguments that cannot be
        encoded, `PayloadTooLargeError` for more than `RELIER_MAX_PAYLOAD_BYTES`; then nothing was enqueued.
        """
        if asyncio._get_running_loop() is not None:  # The public one raises, which takes long.
            self._refuse_event_loop(f"use `await {self.actor_name}.apush(...)`")
        return self._publish(self.message(*args, **kwargs))

    async def apush(self, *args: P.args, **kwargs: P.kwargs) -> TaskReceipt:
        """Enqueue a task from async code and return its receipt; publishing happens on one dedicated thread.

        Raises as `push` does. When the awaiting task is cancelled, the push may still happen.
        """
        message = self.message(*args, **kwargs)
        publish = functools.partial(contextvars.copy_context().run, self._publish, message)
        return await asyncio.get_running_loop().run_in_executor(_publisher(), publish)

    def push_many(self, messages: Iterable[dramatiq.Message[Any]]) -> list[TaskReceipt]:
        """Enqueue messages built by `message(...)` and return their receipts in the same order.

        All are checked before the first is enqueued. Raises `TypeError` for anything but a message and for
        arguments that cannot be encoded, `PayloadTooLargeError` for a message that is too large.
        """
        self._refuse_event_loop(f"use `await asyncio.to_thread({self.actor_name}.push_many, messages)`")
        batch = list(messages)
        for place, message in enumerate(batch):
            _check_message(message, place, self.actor_name)
        return [TaskReceipt.of(message, self.broker) for message in _enqueue_all(self.broker, batch)]

    def message_with_options(
        self, *, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None, **options: Any
    ) -> dramatiq.Message[R]:
        """Build a message as Dramatiq does. Raises `TypeError` when it would carry the task's context."""
        if self.context_parameter is not None and self.context_parameter.name in (kwargs or {}):
            name = self.context_parameter.name
            raise TypeError(f"Actor {self.actor_name!r} gets {name!r} from its worker; do not pass it.")
        return super().message_with_options(args=args, kwargs=kwargs, **options)

    def _publish(self, message: dramatiq.Message[Any]) -> TaskReceipt:
        try:
            return TaskReceipt.of(self.broker.enqueue(message), self.broker)
        except Exception:
            _encoded(message)  # says more than an encoder that knows no actor
            raise

    def _refuse_event_loop(self, way_out: str) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        raise RuntimeError(f"Pushing here would block the running event loop; {way_out}.")


class ActorDecorator(Protocol):
    """What `rl_actor(...)` returns when it is called with options only."""

    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]], /) -> RelierActor[P, R]: ...

    @overload
    def __call__(self, fn: Callable[P, R], /) -> RelierActor[P, R]: ...


@overload
def rl_actor(fn: Callable[P, Awaitable[R]], /, **options: Any) -> RelierActor[P, R]: ...


@overload
def rl_actor(fn: Callable[P, R], /, **options: Any) -> RelierActor[P, R]: ...


@overload
def rl_actor(
    *,
    queue: str | None = None,
    queue_name: str | None = None,
    actor_name: str | None = None,
    priority: int | None = None,
    broker: dramatiq.Broker | None = None,
    **options: Any,
) -> ActorDecorator: ...


def rl_actor(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    queue: str | None = None,
    queue_name: str | None = None,
    actor_name: str | None = None,
    priority: int | None = None,
    broker: dramatiq.Broker | None = None,
    **options: Any,
) -> Any:
    """Declare an actor whose tasks survive the death of their worker.

    Parameters:
      queue: A public queue; Dramatiq's `queue_name` means the same. Default: `default`.
      actor_name: Default: the function's name.
      priority: Lower runs first. Default: 0, 50, 100 in `high_priority`, `default`, `low_priority`, else 0.
      broker: Default: the global broker if one was set, else Relier's own, built from the settings.
      max_resurrections: Crashes of its workers that a task survives. Default: `RELIER_MAX_RESURRECTIONS` (5).
      on_crash: `"dead"` sends a task to the DLQ when its worker dies; default `"retry"`.
      on_dead: An actor, or its name, that gets the dead record of a task that became a dead letter.
      transient, deterministic: Exception classes that are worth retrying, or never.
      park_after: So many different tasks that fail alike, with no success between them, park the actor: its tasks
        wait for an operator or for other code. 0: never. Default: `RELIER_PARK_AFTER` (0).
      max_retries, min_backoff, max_backoff, throws, retry_when: Dramatiq's (milliseconds); they win over
        what Relier makes of a failure by itself.
      schema_version: Version of the payload that the function takes, from 1. Raise it when its arguments change, and
        register a migration from the version before (`SchemaRegistry`).
      admission_limit, admission_window, admission_key: At most so many tasks in so many seconds, of the actor or of
        each key (a template or a function of the arguments).
      idempotent: `True`: of all tasks with the same arguments one completes, within `idempotency_ttl`. Default: False.
      idempotency_key: What makes two tasks the same, instead of all arguments: a function of the arguments (None: this
        task has no key), or a template such as `"order:{order_id}"`.
      idempotency_ttl: Seconds for which a completion counts. Default: `RELIER_IDEMPOTENCY_DEFAULT_TTL` (3600).
      on_duplicate: What a task does whose key another one is running under: `"wait"` for its turn (default), `"join"`:
        share its end, or `"drop"`.
      job_key: What makes two tasks the same job: a function of the arguments (None: this task has no key), or a
        template such as `"report:{report_id}"`. The newest wins: a push ends the older task, wherever that is.
      on_superseded: What becomes of an older one that runs: `"cancel"` (default), or `"finish"`, without completing.
      on_dead_job: Whether a push ends a dead letter with its key, `"supersede"` (default), or is refused, `"refuse"`.
      hard_timeout: Seconds after which an async actor is cancelled and its task dead-lettered. Default: 300.
      slo_target: Which rate of the actor's tasks is to succeed. Default: `RELIER_SLO_TARGET` (0.999).
      slo_latency: Within how many seconds after their push. Default: none.
      soft_timeout, on_soft_timeout: Seconds, below `hard_timeout`, after which the hook gets the context, once.
      **options: Every option that a middleware of the broker knows.

    Raises `ValueError`, which names the fix, for anything that could not work.
    """
    if queue is not None and queue_name is not None:
        raise ValueError("Give queue or queue_name, not both: they mean the same.")
    wanted = queue if queue is not None else queue_name

    def declare(fn: Callable[..., Any]) -> RelierActor[..., Any]:
        name = _check_function(fn, actor_name)
        settings = get_settings()
        lane = check_queue("default" if wanted is None else wanted, settings)
        checked = check_values(name, options, settings)
        parameter = context_parameter(_signature_of(fn))
        for option in TEMPLATES:
            check_template(name, option, checked.get(option), fn, parameter.name if parameter else None)
        check_timeouts(name, inspect.iscoroutinefunction(_as_function(fn)), checked)
        chosen = _protected(broker or _default_broker(settings))
        check_names(name, options, chosen.actor_options)
        check_on_dead(chosen, name, checked)
        return RelierActor(
            fn,
            broker=chosen,
            actor_name=name,
            queue_name=lane,
            priority=QUEUE_PRIORITIES.get(lane, 0) if priority is None else priority,
            options=checked,
        )

    return declare if fn is None else declare(fn)


def _check_function(fn: Any, actor_name: str | None) -> str:
    if isinstance(fn, dramatiq.Actor):
        raise ValueError(f"{fn.actor_name!r} is an actor already: apply rl_actor once, to the function itself.")
    if not callable(fn):
        raise ValueError(f"rl_actor takes a function, not {fn!r}. Options are keywords: rl_actor(queue='…').")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise ValueError(f"{fn.__name__!r} contains `yield`: calling it as an actor would run nothing.")
    name = actor_name or getattr(fn, "__name__", None)
    if not isinstance(name, str):
        raise ValueError(f"{fn!r} has no name of its own: give it one with actor_name='…'.")
    return name


def _default_broker(settings: Settings) -> dramatiq.Broker:
    """Return the global broker; never ask Dramatiq for it, which would silently build one for RabbitMQ."""
    if dramatiq.broker.global_broker is None:
        from relier.brokers import default_broker

        dramatiq.set_broker(default_broker(settings))
    return dramatiq.get_broker()


def _protected(broker: dramatiq.Broker) -> dramatiq.Broker:
    from relier.installation import install, is_installed

    if not is_installed(broker):
        install(broker)
    return broker


def _signature_of(fn: Any) -> Callable[..., Any]:
    """A class-based actor's own signature is that of `perform`."""
    return fn.perform if isinstance(fn, dramatiq.GenericActor) else fn


def _as_function(fn: Any) -> Any:
    """Turn callable objects that return coroutines into functions that Dramatiq recognises as async."""
    body = fn.perform if isinstance(fn, dramatiq.GenericActor) else getattr(fn, "__call__", None)  # noqa: B004
    if inspect.iscoroutinefunction(fn) or not inspect.iscoroutinefunction(body):
        return fn

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    functools.update_wrapper(call, fn)
    del call.__wrapped__  # type: ignore[attr-defined]  # what is inside is no coroutine function
    return call


#: The publishing thread of this process, by process id: a forked child must not inherit its parent's.
_publishers: dict[int, ThreadPoolExecutor] = {}


def _publisher() -> ThreadPoolExecutor:
    pid = os.getpid()
    if pid not in _publishers:
        # No thread starts before the first push; of two executors made at once, one is simply dropped.
        _publishers.setdefault(pid, ThreadPoolExecutor(1, thread_name_prefix="relier-publisher"))
    return _publishers[pid]


def _enqueue_all(broker: dramatiq.Broker, batch: list[dramatiq.Message[Any]]) -> Sequence[dramatiq.Message[Any]]:
    from relier.brokers.adapters import adapter_of

    limit = broker.__dict__["relier_installation"].settings.max_payload_bytes
    for message in batch:
        check_size(message, len(_encoded(message)), limit)
    return adapter_of(broker).enqueue_many(batch)


def _check_message(message: Any, place: int, actor_name: str) -> None:
    if not isinstance(message, dramatiq.Message):
        raise TypeError(
            f"push_many takes messages built by {actor_name}.message(...), not {type(message).__name__} (item {place})."
        )


def _encoded(message: dramatiq.Message[Any]) -> bytes:
    """Return a message encoded. Raises `TypeError`, which names what cannot be."""
    try:
        encoded: bytes = message.encode()
        return encoded
    except Exception as error:
        raise TypeError(
            f"Actor {message.actor_name!r}: {_culprit(message)} cannot be encoded by"
            f" {type(get_encoder()).__name__}: {error}"
        ) from error


def _culprit(message: dramatiq.Message[Any]) -> str:
    """Name the first argument that cannot be encoded by itself."""
    named = [(f"argument {place + 1}", value) for place, value in enumerate(message.args)]
    named += [(f"argument {name!r}", value) for name, value in message.kwargs.items()]
    for name, value in named:
        try:
            get_encoder().encode({"value": value})
        except Exception:
            return name
    return "an option"
