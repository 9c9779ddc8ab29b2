"""Idempotency keys of tasks: how one is made when a message is enqueued, and what the store is told of it."""

from __future__ import annotations

import hashlib
import logging
import string
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any

from dramatiq import Broker, Message
from dramatiq.actor import Actor

from relier.canonical import canonical_bytes
from relier.hooks import has_success_hooks, passes_result_on
from relier.results import kept_for
from relier.settings import Settings
from relier.store import KeyTerms
from relier.templates import signature_of

logger = logging.getLogger(__name__)

#: What a duplicate does while another task runs under its key.
POLICIES = ("wait", "join", "drop")

#: A live owner keeps its key; this much (s) is left for a `hard_timeout` to end it before a dead one's would lapse.
TIMEOUT_MARGIN = 10.0

_DIGEST_BYTES = 16


def digest(*parts: Any) -> str:
    """Return the name under which the store knows a key: 22 characters."""
    hashed = hashlib.blake2b(canonical_bytes(parts, "key"), digest_size=_DIGEST_BYTES).digest()
    return urlsafe_b64encode(hashed).rstrip(b"=").decode()


def is_idempotent(options: Mapping[str, Any]) -> bool:
    """Whether an actor with these options makes keys."""
    return bool(options.get("idempotent")) or options.get("idempotency_key") is not None


def key_of(broker: Broker, message: Message[Any]) -> str:
    """Return the digest of a message's idempotency key; '' when it has none.

    Raises `ValueError` when its arguments have no stable form, and when the actor's own function or template fails.
    """
    actor = broker.actors.get(message.actor_name)
    if actor is None or not is_idempotent(actor.options):
        return ""
    source = actor.options.get("idempotency_key")
    if source is None:
        parts: tuple[Any, ...] = ("arguments", _arguments(actor, message))
    else:
        key = own_key(actor, message, "idempotency_key", source)
        if key is None:
            return ""
        parts = ("key", key)
    try:
        return digest(actor.actor_name, *parts)
    except ValueError as error:
        raise ValueError(
            f"Actor {actor.actor_name!r}: no idempotency key can be made: {error}"
            " Name what matters with idempotency_key=…"
        ) from error


def key_of_follow_up(broker: Broker, message: Message[Any]) -> str:
    """Return the digest for a message that a hook enqueues: a key that cannot be made must not lose it."""
    try:
        return key_of(broker, message)
    except Exception:
        logger.exception(
            "No idempotency key could be made for a follow-up; it runs without one.",
            extra={"task": message.message_id, "actor": message.actor_name},
        )
        return ""


def terms_of(broker: Broker, message: Any, key: str, settings: Settings) -> KeyTerms | None:
    """Return what the store needs to know of a message's key; None when it has none."""
    if not key:
        return None
    actor = broker.actors.get(message.actor_name)
    options: Mapping[str, Any] = actor.options if actor else {}
    hooks = has_success_hooks(broker, message)
    return KeyTerms(
        key=key,
        on_duplicate=options.get("on_duplicate") or "wait",
        hooks=hooks,
        needs_result=hooks and passes_result_on(broker, message),
        ttl=options.get("idempotency_ttl") or settings.idempotency_default_ttl,
        in_flight=settings.idempotency_inflight_ttl,
        retention=settings.result_ttl,
        result_ttl=kept_for(broker, message, settings) / 1000 or settings.result_ttl,
    )


def check_options(actor_name: str, options: Mapping[str, Any], settings: Settings) -> None:
    """Raise `ValueError` for options of idempotency that are wrong by themselves."""
    idempotent, key = options.get("idempotent"), options.get("idempotency_key")
    if idempotent is not None and not isinstance(idempotent, bool):
        raise ValueError(f"Actor {actor_name!r}: idempotent is True or False, not {idempotent!r}.")
    if idempotent is False and key is not None:
        raise ValueError(f"Actor {actor_name!r}: idempotency_key makes it idempotent; leave idempotent=False out.")
    if key is not None and not (callable(key) or (isinstance(key, str) and key)):
        raise ValueError(
            f"Actor {actor_name!r}: idempotency_key is a function of the arguments, or a template like"
            f" 'order:{{order_id}}', not {key!r}."
        )
    policy, ttl = options.get("on_duplicate", "wait"), options.get("idempotency_ttl", 1)
    if policy not in POLICIES:
        raise ValueError(f"Actor {actor_name!r}: on_duplicate is 'wait', 'join' or 'drop', not {policy!r}.")
    if isinstance(ttl, bool) or not isinstance(ttl, int | float) or not ttl > 0:
        raise ValueError(f"Actor {actor_name!r}: idempotency_ttl is a number of seconds above 0, not {ttl!r}.")
    if not is_idempotent(options):
        _refuse_without_key(actor_name, options)
    else:
        _check_company(actor_name, options, settings)


def _refuse_without_key(actor_name: str, options: Mapping[str, Any]) -> None:
    for name in ("idempotency_ttl", "on_duplicate"):
        if name in options:
            raise ValueError(f"Actor {actor_name!r}: {name} needs idempotent=True or an idempotency_key.")


def _check_company(actor_name: str, options: Mapping[str, Any], settings: Settings) -> None:
    if options.get("job_key") is not None:
        raise ValueError(
            f"Actor {actor_name!r}: job_key and idempotency exclude each other: with a job_key the newest task wins,"
            " with an idempotency key the first. Keep one of them."
        )
    hard, limit = options.get("hard_timeout"), settings.idempotency_inflight_ttl
    if isinstance(hard, int | float) and hard >= limit:
        raise ValueError(
            f"Actor {actor_name!r}: hard_timeout ({hard:g} s) must be < IDEMPOTENCY_INFLIGHT_TTL ({limit:g} s). Safe:"
            f" hard_timeout <= RELIER_IDEMPOTENCY_INFLIGHT_TTL - {TIMEOUT_MARGIN:g} s, here"
            f" {max(0.0, limit - TIMEOUT_MARGIN):g} s; or raise RELIER_IDEMPOTENCY_INFLIGHT_TTL."
        )


def own_key(actor: Actor[..., Any], message: Message[Any], option: str, source: str | Callable[..., Any]) -> Any:
    """Return what the actor's template or function makes of the arguments. Raises `ValueError`, naming the option."""
    arguments = _arguments(actor, message) if isinstance(source, str) else {}
    if isinstance(arguments, list):
        raise ValueError(f"Actor {actor.actor_name!r} does not take these arguments, so it has no key {source!r}.")
    try:
        if isinstance(source, str):
            return string.Formatter().vformat(source, (), arguments)
        return source(*message.args, **message.kwargs)
    except Exception as error:
        raise ValueError(f"Actor {actor.actor_name!r}: {option} failed ({type(error).__name__}: {error}).") from error


def _arguments(actor: Actor[..., Any], message: Message[Any]) -> Any:
    """Return the arguments by name, defaults included; as they are when the actor does not take them."""
    parameter = getattr(actor, "context_parameter", None)
    signature = signature_of(actor.fn, parameter.name if parameter is not None else None)
    if signature is not None:
        try:
            bound = signature.bind(*message.args, **message.kwargs)
        except TypeError:  # Its run will say so.
            pass
        else:
            bound.apply_defaults()
            return bound.arguments
    return [list(message.args), message.kwargs]
