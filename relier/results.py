"""What is kept of an actor's result, for how long, and what it is when it is read."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from dramatiq import Broker, get_encoder

from relier.errors import ResultMissing
from relier.settings import Settings

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
    ttl = message.options.get("result_ttl") or options.get("result_ttl") or settings.result_ttl * 1000
    if idempotent:  # Duplicates come as long as the key lives, and are to find it.
        ttl = max(ttl, (options.get("idempotency_ttl") or settings.idempotency_default_ttl) * 1000)
    return max(1, int(ttl))


def encoded_result(result: Any, ttl: int, limit: int, task_id: str) -> tuple[bytes, Kept | None]:
    """Return the result as it is stored, and how it is kept: for `ttl` milliseconds, in at most `limit` bytes.

    One that cannot be encoded is kept nowhere, and cannot be passed on either; its task has completed all the same.
    """
    try:
        encoded = get_encoder().encode({"result": result})
    except Exception as error:
        if not ttl:
            return b"", None
        logger.error("The result of a task cannot be encoded; none is kept.", extra={"task": task_id})
        return b"", Kept(ttl, f"u{type(error).__name__}: {error}"[:REASON_KEPT])
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
