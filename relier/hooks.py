"""What happens after a task has ended: which hooks it has, and what a replay of them needs."""

from __future__ import annotations

import traceback
from typing import Any

from dramatiq import Broker, get_encoder
from dramatiq.results import Results
from dramatiq.threading import Interrupt

#: Longest text (characters) of a traceback that is kept.
TRACEBACK_KEPT = 8_000
#: Longest text (characters) of an exception that is kept.
MESSAGE_KEPT = 2_000


def option(broker: Broker, message: Any, name: str) -> Any:
    """Return an option of the message, else of its actor."""
    actor = broker.actors.get(message.actor_name)
    return message.options.get(name) or (actor.options.get(name) if actor else None)


def results_of(broker: Broker, message: Any) -> tuple[Results, int] | None:
    """Return the Results middleware and the time to live in ms, if a hook is to store this message's result."""
    middleware = _storing_results(broker)
    if middleware is None:
        return None
    store_results, ttl = middleware._lookup_options(broker, message)  # type: ignore[no-untyped-call]
    return (middleware, ttl) if store_results else None


def _storing_results(broker: Broker) -> Results | None:
    """Return the Results middleware that stores by itself; looked for once as long as the middlewares are the same."""
    known, found = broker.__dict__.get("relier_results", ((), None))
    if known != broker.middleware:
        results = (m for m in broker.middleware if isinstance(m, Results))
        found = next((m for m in results if not getattr(m.backend, "kept_by_commit", False)), None)
        broker.__dict__["relier_results"] = list(broker.middleware), found
    return found  # type: ignore[no-any-return]


def has_success_hooks(broker: Broker, message: Any) -> bool:
    """Whether anything is to be done after the task completed."""
    return bool(
        message.options.get("pipe_target")
        or message.options.get("group_completion_uuid")
        or option(broker, message, "on_success")
        or results_of(broker, message)
    )


def sends_result_on(broker: Broker, message: Any) -> bool:
    """Whether another task gets the result as an argument."""
    target = message.options.get("pipe_target")
    ignored = not target or target.get("options", {}).get("pipe_ignore") or option(broker, message, "pipe_ignore")
    return bool(not ignored or option(broker, message, "on_success"))


def passes_result_on(broker: Broker, message: Any) -> bool:
    """Whether any of those hooks needs the result."""
    return sends_result_on(broker, message) or bool(results_of(broker, message))


def has_failure_hooks(broker: Broker, message: Any) -> bool:
    """Whether anything is to be done after the task failed for good."""
    return bool(
        option(broker, message, "on_failure")
        or option(broker, message, "on_retry_exhausted")
        or results_of(broker, message)
    )


def decode_result(encoded: bytes) -> Any:
    return get_encoder().decode(encoded)["result"] if encoded else None


def text_of(error: BaseException) -> str:
    """Return an exception's text, such as can be encoded. One that cannot tell it is a failure like any other."""
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()  # It may name a file that is not UTF-8.
    except Interrupt:  # Meant for the run.
        raise
    except BaseException as why:  # Even one that asks for the end of the process: its failure comes first.
        return f"<its text cannot be told: {type(why).__name__}>"


def encode_failure(error: BaseException, **more: Any) -> bytes:
    """Return a failure as the DLQ and a replay of the hooks need it."""
    lines = traceback.format_exception(error)
    failure = {
        "type": type(error).__name__,
        "module": type(error).__module__,
        "message": text_of(error)[:MESSAGE_KEPT],
        "traceback": "".join(lines)[-TRACEBACK_KEPT:],
        **more,
    }
    try:
        return get_encoder().encode(failure)
    except Exception:  # Lone surrogates, mostly.
        return get_encoder().encode(
            {key: repr(value) if isinstance(value, str) else value for key, value in failure.items()}
        )


def decode_failure(encoded: bytes) -> dict[str, Any]:
    """Return an encoded failure; empty when there is none."""
    if not encoded:
        return {}
    failure: dict[str, Any] = get_encoder().decode(encoded)
    return failure


def replayed_failure(encoded: bytes) -> Exception:
    """Return an exception of the failure's name and text, for the hooks of a dead task that are replayed."""
    failure = decode_failure(encoded)
    kind = type(str(failure.get("type", "Exception")), (Exception,), {"__module__": failure.get("module", "builtins")})
    error: Exception = kind(failure.get("message", ""))
    return error
