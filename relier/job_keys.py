"""Job keys: of all tasks that are pushed under one key, the newest wins. How one is made when a message is enqueued."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from dramatiq import Broker, Message

from relier.idempotency import digest, own_key

logger = logging.getLogger(__name__)

#: What becomes of an older task that runs, and of a push whose key a dead letter has.
ON_SUPERSEDED = ("cancel", "finish")
ON_DEAD_JOB = ("supersede", "refuse")

#: The options of an actor that go with a key.
OPTIONS = ("job_key", "on_superseded", "on_dead_job")


def job_of(broker: Broker, message: Message[Any]) -> str:
    """Return the digest of a message's job key; '' when it has none.

    Raises `ValueError` when the actor's own function or template fails, or gives what has no stable form.
    """
    actor = broker.actors.get(message.actor_name)
    source = actor.options.get("job_key") if actor is not None else None
    if actor is None or source is None:
        return ""
    key = own_key(actor, message, "job_key", source)
    if key is None:
        return ""
    try:
        return digest(actor.actor_name, "job", key)
    except ValueError as error:
        raise ValueError(f"Actor {actor.actor_name!r}: its job_key has no stable form: {error}") from error


def job_of_follow_up(broker: Broker, message: Message[Any]) -> str:
    """Return the digest for a message that a hook enqueues: a key that cannot be made must not lose it."""
    try:
        return job_of(broker, message)
    except Exception:
        logger.exception(
            "No job key could be made for a follow-up; it runs without one.",
            extra={"task": message.message_id, "actor": message.actor_name},
        )
        return ""


def check_options(actor_name: str, options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for options of job keys that are wrong by themselves."""
    key = options.get("job_key")
    if key is not None and not (callable(key) or (isinstance(key, str) and key)):
        raise ValueError(
            f"Actor {actor_name!r}: job_key is a function of the arguments, or a template like 'report:{{report_id}}',"
            f" not {key!r}."
        )
    for name, choices in (("on_superseded", ON_SUPERSEDED), ("on_dead_job", ON_DEAD_JOB)):
        if name in options and key is None:
            raise ValueError(f"Actor {actor_name!r}: {name} needs a job_key.")
        if options.get(name, choices[0]) not in choices:
            raise ValueError(
                f"Actor {actor_name!r}: {name} is {choices[0]!r} or {choices[1]!r}, not {options[name]!r}."
            )
