"""Which limits a task is counted under: the global one, and what its actor asks for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from dramatiq import Broker, Message
from dramatiq.actor import Actor

from relier.settings import Settings
from relier.store.admissions import GLOBAL, Limit
from relier.templates import signature_of

#: Longer keys are replaced by a digest.
LONGEST_KEY = 100

Key = Callable[..., Any]


class Limits:
    """The limits of one broker's tasks.

    Parameters:
      broker: knows the actors.
      settings: with the global limit.
    """

    def __init__(self, broker: Broker, settings: Settings) -> None:
        self._actors = broker.actors
        self._settings = settings
        #: Holds for every task.
        self.everything = Limit(GLOBAL, settings.admission_limit, settings.admission_window)
        #: Actors without a limit of their own.
        self._free: set[str] = set()

    def of(self, message: Message[Any]) -> tuple[Limit, ...]:
        """Return the task's limits besides the global one. Raises `ValueError` when its key cannot be made."""
        name = message.actor_name
        if name in self._free:
            return ()
        actor = self._actors.get(name)
        if actor is None:
            return ()
        most = actor.options.get("admission_limit")
        if most is None:
            self._free.add(name)
            return ()
        window = float(actor.options.get("admission_window") or self._settings.admission_window)
        key = actor.options.get("admission_key")
        scope = f"actor:{name}" if key is None else f"key:{name}:{_shortened(key_of(actor, key, message))}"
        return (Limit(scope, int(most), window),)


def key_of(actor: Actor[..., Any], key: str | Key, message: Message[Any]) -> str:
    """Return the key of a task: what a template makes of its arguments by name, or what a function returns for them."""
    try:
        if callable(key):
            return str(key(*message.args, **message.kwargs))
        return key.format(*message.args, **arguments_of(actor, message))
    except Exception as error:
        raise ValueError(
            f"Actor {actor.actor_name!r}: admission_key failed ({type(error).__name__}: {error})."
        ) from error


def arguments_of(actor: Actor[..., Any], message: Message[Any]) -> Mapping[str, Any]:
    """Return the arguments of a message by the names that the actor's function gives them, defaults included."""
    parameter = getattr(actor, "context_parameter", None)
    signature = signature_of(actor.fn, parameter.name if parameter is not None else None)
    if signature is None:
        return message.kwargs
    bound = signature.bind_partial(*message.args, **message.kwargs)
    bound.apply_defaults()
    return {**bound.arguments, **message.kwargs}


def _shortened(key: str) -> str:
    if len(key) <= LONGEST_KEY:
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def check_options(actor_name: str, options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for options of admission that could not work."""
    limit, window, key = (options.get(f"admission_{name}") for name in ("limit", "window", "key"))
    if limit is None:
        for name in ("admission_window", "admission_key"):
            if options.get(name) is not None:
                raise ValueError(f"Actor {actor_name!r}: {name} needs admission_limit, the number of tasks admitted.")
        return
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueError(f"Actor {actor_name!r}: admission_limit is a whole number from 1, not {limit!r}.")
    number = isinstance(window, int | float) and not isinstance(window, bool)
    if window is not None and not (number and 0.1 <= window <= 86_400):
        raise ValueError(
            f"Actor {actor_name!r}: admission_window is a number of seconds from 0.1 to 86400, not {window!r}."
        )
    if key is not None and not callable(key) and not isinstance(key, str):
        raise ValueError(f"Actor {actor_name!r}: admission_key is a template or a function, not {key!r}.")
