"""The option `on_dead`: the actor that gets the dead record of another one's task.

The store makes that a task of its own in the step that dead-letters (see `include/letters.lua`); `relier.notices` makes
its message.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from dramatiq import Broker
from dramatiq.actor import Actor

from relier.templates import signature_of

logger = logging.getLogger(__name__)


def named(options: Mapping[str, Any]) -> str:
    """Return the name of the actor that is told; '' when none is."""
    found = options.get("on_dead")
    name = found.actor_name if isinstance(found, Actor) else found
    return name if isinstance(name, str) else ""


def check_on_dead(broker: Broker, actor_name: str, options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for an `on_dead` that could not work, of this actor or of one that names this actor.

    A name may be declared later; then it is checked there.
    """
    given = options.get("on_dead")
    if given is not None:
        if not isinstance(given, Actor | str) or not given:
            raise ValueError(f"Actor {actor_name!r}: on_dead is an actor or its name, not {given!r}.")
        if isinstance(given, Actor) and given.broker is not broker:
            raise ValueError(f"Actor {actor_name!r}: on_dead must be an actor of the same broker.")
        _check_way(broker, actor_name, named(options))
        target = broker.actors.get(named(options))
        if target is not None:
            _check_target(actor_name, target.actor_name, target.options, _takes(target))
    for other in list(broker.actors.values()):
        if named(other.options) == actor_name:
            _check_target(other.actor_name, actor_name, options)


def _check_way(broker: Broker, actor_name: str, target: str) -> None:
    """Refuse a way that leads back: what one actor is told would be the other's dead record, and so on."""
    way = [actor_name]
    while target:
        way.append(target)
        if target in way[:-1]:
            raise ValueError(
                f"Actor {actor_name!r}: on_dead leads back to itself ({' → '.join(way)}). Name one that only tells."
            )
        actor = broker.actors.get(target)
        target = named(actor.options) if actor is not None else ""


def _check_target(actor_name: str, target: str, options: Mapping[str, Any], takes: bool = True) -> None:
    for option in ("idempotent", "idempotency_key", "job_key"):
        if options.get(option):
            raise ValueError(
                f"Actor {actor_name!r}: its on_dead {target!r} must have no {option}: each dead record is a task of its"
                " own."
            )
    if not takes:
        raise ValueError(f"Actor {actor_name!r}: its on_dead {target!r} must take one argument, the dead record.")


def _takes(target: Actor[..., Any]) -> bool:
    """Whether an actor can be called with one argument, as far as that can be told."""
    parameter = getattr(target, "context_parameter", None)
    signature = signature_of(target.fn, parameter.name if parameter else None)
    if signature is None:
        return True
    try:
        signature.bind({})
    except TypeError:
        return False
    return True


def report_strangers(broker: Broker) -> None:
    """Log each `on_dead` that this process does not have: its queue is not known here."""
    for actor in broker.actors.values():
        name = named(actor.options)
        if name and name not in broker.actors:
            logger.error("The on_dead of an actor is unknown here.", extra={"actor": actor.actor_name, "on_dead": name})
