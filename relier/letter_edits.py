"""Editing a dead letter's arguments: what runs then is checked and sealed as if it were sent now, and nothing else is.

A message that would be refused stays refused, and one without a signature stays without: whoever edits a letter vouches
for its arguments, not for where it came from.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dramatiq import Actor, Broker, Message
from dramatiq.errors import DecodeError

from relier.envelope import OPTION, Fresh, is_stamped, version_of
from relier.errors import PayloadIntegrityError, RelierError, SchemaMigrationError
from relier.integrity import Integrity
from relier.schema import migrations
from relier.sending import payload_version

#: Version of the stamp of a message without a seal.
UNSEALED = 1


class EditRefusedError(RelierError):
    """The arguments do not fit, or the message is none that may be vouched for. The letter was not touched."""


@dataclass(frozen=True, slots=True)
class Edited:
    """A message with other arguments."""

    body: bytes
    #: Why the arguments were not compared with the actor's parameters; '' when they were, and fit.
    unchecked: str = ""


def edited(
    body: bytes,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    *,
    integrity: Integrity,
    broker: Broker | None = None,
    limit: int | None = None,
) -> Edited:
    """Return a letter's message with other arguments. Raises `EditRefusedError`.

    Parameters:
      args, kwargs: take the place of the message's own; None: those stay.
      broker: its actors tell what parameters there are.
      limit: most bytes of a message.
    """
    message, vouched = _examined(body, integrity)
    args = message.args if args is None else tuple(args)
    kwargs = message.kwargs if kwargs is None else dict(kwargs)
    actor = broker.actors.get(message.actor_name) if broker is not None else None
    unchecked = _why_unchecked(message, actor)
    if actor is not None and broker is not None and not unchecked:
        _check(actor, *_migrated(message, args, kwargs, payload_version(broker, actor.actor_name)))
    changed = _sealed(message, args, kwargs, integrity if vouched else None)
    if limit is not None and len(changed) > limit:
        raise EditRefusedError(f"The message would have {len(changed)} bytes; RELIER_MAX_PAYLOAD_BYTES is {limit}.")
    return Edited(changed, unchecked)


def _examined(body: bytes, integrity: Integrity) -> tuple[Message[Any], bool]:
    """Return the message, and whether it is to be sealed again. Refuses what a worker would refuse."""
    try:
        message: Message[Any] = Message.decode(body)
        vouched = integrity.examine(message)
    except (DecodeError, TypeError, PayloadIntegrityError) as error:
        raise EditRefusedError(
            f"Its message may not be vouched for: {error} Enqueue the task again from its source."
        ) from None
    stamp = message.options.get(OPTION)
    if integrity.keys is None and isinstance(stamp, dict) and isinstance(stamp.get("g"), list):
        raise EditRefusedError("Its message is signed: set RELIER_SIGNING_KEYS here, to sign the new one.")
    return message, vouched and is_stamped(message)


def _why_unchecked(message: Message[Any], actor: Actor[Any, Any] | None) -> str:
    if actor is None:
        return f"no module of RELIER_ACTORS declares the actor {message.actor_name!r}"
    if version_of(message) > int(actor.options.get("schema_version") or 1):
        return f"the actor {message.actor_name!r} is of an older version here than the letter"
    return ""


def _migrated(message: Message[Any], args: Any, kwargs: Any, version: int) -> tuple[Any, Any]:
    """Return the arguments as a worker would pass them: of the letter's version they become those of the actor's."""
    try:
        return migrations.apply(message.actor_name, tuple(args), dict(kwargs), version_of(message), version)
    except SchemaMigrationError as error:
        raise EditRefusedError(f"The arguments are of payload version {version_of(message)}. {error}") from None


def _check(actor: Actor[Any, Any], args: Any, kwargs: Any) -> None:
    """Compare arguments with the actor's parameters, but for the one that gets the context."""
    try:
        signature = inspect.signature(actor.fn)
    except (TypeError, ValueError):  # some builtins have no signature
        return
    context = getattr(actor, "context_parameter", None)
    parameters = [p for p in signature.parameters.values() if context is None or p.name != context.name]
    try:
        signature.replace(parameters=parameters).bind(*args, **kwargs)
    except TypeError as error:
        raise EditRefusedError(f"{actor.actor_name}{signature}: {error}.") from None


def _sealed(message: Message[Any], args: Any, kwargs: Any, integrity: Integrity | None) -> bytes:
    """Return the encoded message, sealed again by who may; without a seal otherwise."""
    fields = {**message.asdict(), "args": tuple(args), "kwargs": dict(kwargs)}
    stamp = fields["options"].get(OPTION)
    if isinstance(stamp, dict):
        bare = {name: value for name, value in stamp.items() if name != "g"} | {"v": UNSEALED}
        fields["options"] = {**fields["options"], OPTION: bare if integrity is None else Fresh(bare)}
    changed: Message[Any] = Message(**fields)
    try:
        if integrity is not None:
            integrity.seal(changed)
        encoded: bytes = changed.encode()
    except (TypeError, ValueError) as error:
        raise EditRefusedError(f"The arguments cannot be sent: {error}.") from None
    return encoded
