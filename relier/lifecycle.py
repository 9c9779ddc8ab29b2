"""Where a task's life meets Dramatiq's: which message a thread runs next, and the claim in front of its actor."""

from __future__ import annotations

import functools
from threading import local
from typing import Any

from dramatiq.actor import Actor

from relier.arrivals import take_in_hand
from relier.claiming import Delivery
from relier.execution import Execution
from relier.process import WorkerProcess
from relier.queues import is_internal
from relier.runner import coroutine_function
from relier.runs import Run, current

_thread = local()


def deliver(message: Any, process: WorkerProcess) -> None:
    """Note which message this thread runs next."""
    _thread.delivery = Delivery(message, process)
    take_in_hand(message)


def take_delivery(actor_name: str) -> Delivery | None:
    """Return the noted message once, so that an actor called by another actor's code is just a function."""
    delivery: Delivery | None = getattr(_thread, "delivery", None)
    if delivery is None or delivery.message.actor_name != actor_name:
        return None
    _thread.delivery = None
    return delivery


def current_run() -> Run | None:
    """Return the run that the calling user code belongs to."""
    return current.get()


def run_of(message: Any) -> Run | None:
    """Return the run that a message proxy stands for, once it was claimed."""
    run: Run | None = getattr(message, "relier_run", None)
    return run


def claim_before_running(actor: Actor[..., Any]) -> None:
    """Wrap `actor.fn` so that it runs only what the store grants."""
    fn = actor.fn
    if getattr(fn, "__relier__", False) or is_internal(actor.queue_name):
        return

    @functools.wraps(fn)
    def claiming(*args: Any, **kwargs: Any) -> Any:
        delivery = take_delivery(actor.actor_name)
        if delivery is None:
            return fn(*args, **kwargs)
        return Execution(delivery, fn).run(args, kwargs)

    claiming.__relier__ = True  # type: ignore[attr-defined]
    actor.fn = claiming


def is_async(actor: Actor[..., Any]) -> bool:
    """Whether the actor was declared with `async def`."""
    return coroutine_function(getattr(actor.fn, "__wrapped__", actor.fn)) is not None
