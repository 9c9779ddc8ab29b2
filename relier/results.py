"""What is kept of an actor's result, for how long, and what it is when it is read."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from dramatiq import Broker, get_encoder

from relier.errors import ResultMissing
from relier.hooks import has_success_hooks, sends_result_on, text_of
from relier.settings import Settings
from relier.store.verdicts import milliseconds

logger = logging.getLogger(__name__)

#: Longest text (characters) that is kept of why a result could not be encoded.
REASON_KEPT = 300


@dataclass(frozen=True, slots=True)
class Kept:
    """A result as the commit keeps it."""

    #: How long (ms).
    ttl: int
    #: What is kept in place of the value: `l` and its size, `u` and why it could not be encoded. Empty: the value.
    marker: str = ""

    def protections(self) -> dict[str, Any]:
        """Return what the commit script needs to know."""
        return {"res": self.ttl, **({"marker": self.marker} if self.marker else {})}


def is_idempotent(broker: Broker, message: Any) -> bool:
    """Whether a message is one of an idempotent actor."""
    actor = broker.actors.get(message.actor_name)
    options = actor.options if actor else {}
    return bool(options.get("idempotent")) or options.get("idempotency_key") is not None


def kept_for(broker: Broker, message: Any, settings: Settings) -> int:
    """Return how long (ms) a message's result is to be kept; 0 when it is not."""
    actor = broker.actors.get(message.actor_name)
    options = actor.options if actor else {}
    idempotent = is_idempotent(broker, message)
    if not (idempotent or message.options.get("store_results", options.get("store_results"))):
        return 0
    asked = (message.options.get("result_ttl"), options.get("result_ttl"))
    ttl = next(filter(_is_time, asked), settings.result_ttl * 1000)
    if idempotent:  # Duplicates come as long as the key lives, and are to find it.
        ttl = max(ttl, (options.get("idempotency_ttl") or settings.idempotency_default_ttl) * 1000)
    return milliseconds(ttl / 1000)


def _is_time(value: Any) -> bool:
    """Whether it is a time to live: a message's options may be anything, and its code has run when it is asked."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


@dataclass(frozen=True, slots=True)
class Returned:
    """What a run that succeeded hands to its commit."""

    #: Whether hooks are to run after it.
    hooks: bool
    #: The result, encoded, where hooks or whoever asks for it need it.
    result: bytes = b""
    #: What else the commit has to know.
    protections: dict[str, Any] = field(default_factory=dict)


def prepared_result(broker: Broker, message: Any, result: Any, settings: Settings, task_id: str) -> Returned:
    """Prepare a run's result for its commit.

    Raises `TypeError` when another task is to get the result as an argument, and it cannot be encoded: else that one
    would be lost in silence.
    """
    hooks, ttl = has_success_hooks(broker, message), kept_for(broker, message, settings)
    if not (ttl or hooks):
        return Returned(False)
    must = sends_result_on(broker, message)
    encoded, kept = encoded_result(result, ttl, settings.max_result_bytes, task_id, must=must)
    needed = hooks or (kept is not None and not kept.marker)
    return Returned(hooks, encoded if needed else b"", kept.protections() if kept else {})


def encoded_result(result: Any, ttl: int, limit: int, task_id: str, *, must: bool = False) -> tuple[bytes, Kept | None]:
    """Return the result as it is stored, and how it is kept: for `ttl` milliseconds, in at most `limit` bytes.

    One that cannot be encoded raises `TypeError` if it `must` be; else none is kept, and its task has completed all the
    same.
    """
    try:
        encoded = get_encoder().encode({"result": result})
    except Exception as error:
        if must:
            raise TypeError(f"The result is to be passed on, and cannot be encoded: {error}") from error
        if not ttl:
            return b"", None
        logger.error("The result of a task cannot be encoded; none is kept.", extra={"task": task_id})
        return b"", Kept(ttl, f"u{type(error).__name__}: {text_of(error)}"[:REASON_KEPT])
    if ttl and len(encoded) > limit:
        logger.warning("The result of a task is too large; none is kept.", extra={"task": task_id})
        return encoded, Kept(ttl, f"l{len(encoded)}")
    return encoded, Kept(ttl) if ttl else None


def decoded_result(kept: bytes, task_id: str) -> Any:
    """Return the result that `encoded_result` made. Raises `ResultMissing` when what was kept is no value."""
    kind, rest = kept[:1], kept[1:]
    if kind == b"v":
        return get_encoder().decode(rest)["result"]
    text = rest.decode("utf-8", "replace")
    if kind == b"l":
        raise ResultMissing(
            f"Task {task_id}: completed, result too large ({text} bytes; RELIER_MAX_RESULT_BYTES bounds what is kept)."
        )
    if kind == b"u":
        raise ResultMissing(f"Task {task_id}: completed, but its result cannot be encoded: {text}.")
    raise ResultMissing(f"Task {task_id}: completed, but its result is no longer kept.")
