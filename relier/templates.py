"""Templates of keys, such as `order:{order_id}`: what they may name, checked when their actor is declared."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from dramatiq import GenericActor

#: Options that may be a template over the arguments' names.
TEMPLATES = ("idempotency_key", "admission_key", "job_key")


def check_template(actor_name: str, option: str, template: Any, fn: Callable[..., Any], hidden: str | None) -> None:
    """Raise `ValueError` when a template names what is no parameter of the actor, or `hidden`, the context's."""
    if not isinstance(template, str):
        return
    names = _names(actor_name, option, template)
    signature = signature_of(fn, hidden)
    if signature is None or any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        return
    for name in sorted(names - set(signature.parameters)):
        known = ", ".join(signature.parameters) or "none"
        raise ValueError(f"Actor {actor_name!r}: {option} {template!r} names {name!r}; its parameters are: {known}.")


@lru_cache(maxsize=4096)
def signature_of(fn: Callable[..., Any], hidden: str | None) -> inspect.Signature | None:
    """Return the signature of an actor's function without its `hidden` parameter; None where it cannot be told."""
    inner = inspect.unwrap(fn, stop=lambda f: hasattr(f, "__signature__"))
    try:
        signature = inspect.signature(inner.perform if isinstance(inner, GenericActor) else inner)
    except (TypeError, ValueError):  # Some builtins have none.
        return None
    return signature.replace(parameters=[p for p in signature.parameters.values() if p.name != hidden])


def _names(actor_name: str, option: str, template: str) -> set[str]:
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ValueError(f"Actor {actor_name!r}: {option} {template!r} is no template: {error}.") from error
    return {name.partition(".")[0].partition("[")[0] for name in names}
