"""The options of `rl_actor`: which exist, what they may be, and what to say when one is wrong."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from relier import idempotency, job_keys, objectives
from relier.admission_limits import check_options
from relier.settings import Settings
from relier.timeouts import LIMIT_OPTIONS

__all__ = ["INTERNAL_QUEUES", "QUEUE_PRIORITIES", "RELIER_OPTIONS", "check_names", "check_queue", "check_values"]

#: Dramatiq's workers take lower numbers first; other queues keep Dramatiq's default of 0.
QUEUE_PRIORITIES = {"high_priority": 0, "default": 50, "low_priority": 100}
#: Queues of Relier's own, and the suffixes of Dramatiq's delay and dead-letter lanes.
INTERNAL_QUEUES = ("re-queue", "relier.resurrector")
INTERNAL_SUFFIXES = (".DQ", ".XQ")

#: Options that Relier adds to Dramatiq's.
RELIER_OPTIONS = frozenset(
    {
        "max_resurrections",
        "on_crash",
        "on_dead",
        "transient",
        "deterministic",
        "park_after",
        "schema_version",
        "admission_limit",
        "admission_window",
        "admission_key",
        "idempotent",
        "idempotency_key",
        "idempotency_ttl",
        "on_duplicate",
        *job_keys.OPTIONS,
        *objectives.OPTIONS,
        *LIMIT_OPTIONS,
    }
)
#: Dramatiq's, honoured by Relier's own retries.
RETRY_OPTIONS = frozenset({"max_retries", "min_backoff", "max_backoff", "throws", "retry_when"})
#: Dramatiq's, honoured with and without its Results.
RESULT_OPTIONS = frozenset({"store_results", "result_ttl"})
#: Parameters of the decorator itself.
DECORATOR_OPTIONS = frozenset({"queue", "queue_name", "actor_name", "priority", "broker"})


def check_queue(queue: str, settings: Settings) -> str:
    """Return the name of a public queue. Raises `ValueError` for any other."""
    if queue in INTERNAL_QUEUES or str(queue).endswith(INTERNAL_SUFFIXES):
        raise ValueError(f"Unknown public queue {queue!r}: the name is internal. {_public(settings)}")
    if queue not in settings.public_queues:
        raise ValueError(f"Unknown public queue {queue!r}. {_public(settings)}")
    return queue


def check_names(actor_name: str, options: Collection[str], of_broker: Collection[str]) -> None:
    """Raise `ValueError` for an option that neither Relier nor the broker's middleware knows."""
    known = RELIER_OPTIONS | RETRY_OPTIONS | RESULT_OPTIONS | set(of_broker)
    for name in sorted(set(options) - known):
        close = difflib.get_close_matches(name, known | DECORATOR_OPTIONS, n=1)
        if close:
            raise ValueError(f"Unknown option {name!r} of actor {actor_name!r}; did you mean {close[0]!r}?")
        raise ValueError(
            f"Unknown option {name!r} of actor {actor_name!r}. An option of a middleware exists once that"
            " middleware is on the broker."
        )


def check_values(actor_name: str, options: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """Return the options with Relier's defaults filled in. Raises `ValueError` for a bad value."""
    idempotency.check_options(actor_name, options, settings)
    job_keys.check_options(actor_name, options)
    objectives.check_options(actor_name, options)
    checked = {"max_resurrections": settings.max_resurrections, **options}
    _whole(actor_name, checked, "max_resurrections", least=0)
    _whole(actor_name, checked, "schema_version", least=1)
    _whole(actor_name, checked, "park_after", least=0, none=True)
    _whole(actor_name, checked, "max_retries", least=0, none=True)
    _whole(actor_name, checked, "min_backoff", least=0, none=True)
    _whole(actor_name, checked, "max_backoff", least=0, none=True)
    _whole(actor_name, checked, "result_ttl", least=1, none=True)
    if (checked.get("min_backoff") or 0) > (checked.get("max_backoff") or float("inf")):
        raise ValueError(f"Actor {actor_name!r}: min_backoff must not exceed max_backoff (both milliseconds).")
    if checked.get("on_crash", "retry") not in ("retry", "dead"):
        raise ValueError(f"Actor {actor_name!r}: on_crash is 'retry' or 'dead', not {checked['on_crash']!r}.")
    check_options(actor_name, checked)
    for name in ("transient", "deterministic"):
        if name in checked:
            checked[name] = _exceptions(actor_name, name, checked[name])
    for cls in set(checked.get("transient", ())) & set(checked.get("deterministic", ())):
        raise ValueError(f"Actor {actor_name!r}: {cls.__name__} is both in transient and in deterministic.")
    return checked


def _public(settings: Settings) -> str:
    names = ", ".join(settings.public_queues)
    return f"Public queues are: {names}. Add your own with RELIER_QUEUES=name,name."


def _whole(actor_name: str, options: Mapping[str, Any], name: str, *, least: int, none: bool = False) -> None:
    value = options.get(name, least)
    if none and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"Actor {actor_name!r}: {name} is a whole number from {least}, not {value!r}.")


def _exceptions(actor_name: str, name: str, value: Any) -> tuple[type[BaseException], ...]:
    classes = tuple(value) if isinstance(value, tuple | list | set | frozenset) else (value,)
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise ValueError(f"Actor {actor_name!r}: {name} takes exception classes, not {cls!r}.")
    return classes
