"""How long the run of an async actor may take, and what is said when it took longer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from dramatiq import Broker
from dramatiq.middleware import TimeLimit, TimeLimitExceeded

from relier.errors import HardTimeoutError
from relier.hooks import option

__all__ = ["FALLBACK", "LIMIT_OPTIONS", "Limits", "TimeoutError", "check_timeouts", "tell_limit"]

#: Options of async actors.
LIMIT_OPTIONS = ("soft_timeout", "hard_timeout", "on_soft_timeout")

#: How long (s) the run of an async actor may take that sets no limit.
FALLBACK = 300.0

SoftHook = Callable[[Any], Any]


class TimeoutError(HardTimeoutError):  # The name is the reason of the dead letter.
    """The run was cancelled because it exceeded the limit of actors that set none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one run, in seconds from its beginning; `hard` may be infinite."""

    hard: float
    soft: float | None = None
    on_soft: SoftHook | None = None
    #: Which option set the hard limit; '' for none.
    source: str = "hard_timeout"

    @classmethod
    def of(cls, actor_options: Mapping[str, Any], message_options: Mapping[str, Any]) -> Self:
        """Read an async actor's limits: `hard_timeout`, else Dramatiq's `time_limit`, else the fallback."""
        hard = actor_options.get("hard_timeout")
        if hard is not None:
            return cls(hard, actor_options.get("soft_timeout"), actor_options.get("on_soft_timeout"))
        limit_ms = message_options.get("time_limit") or actor_options.get("time_limit")
        if isinstance(limit_ms, int | float) and limit_ms > 0:
            return cls(limit_ms / 1000, source="time_limit")
        return cls(FALLBACK, source="")

    def exceeded(self, actor_name: str) -> BaseException:
        """Return the error of a run that took longer than the hard limit."""
        if self.source == "time_limit":
            return TimeLimitExceeded(f"It ran longer than the time_limit of {actor_name!r} ({self.hard:g} s).")
        if self.source:
            return HardTimeoutError(f"It ran longer than the hard_timeout of {actor_name!r} ({self.hard:g} s).")
        return TimeoutError(
            f"Actor {actor_name!r} has no hard_timeout, and ran longer than the {self.hard:g} s that such actors get."
            " Set one: rl_actor(hard_timeout=<seconds>)."
        )


def tell_limit(error: BaseException, broker: Broker, message: Any) -> None:
    """Give Dramatiq's `TimeLimitExceeded`, which comes without a text, the one that an async actor's has."""
    if not isinstance(error, TimeLimitExceeded) or error.args:
        return
    limit = option(broker, message, "time_limit")
    if limit is None:
        limit = next((m.time_limit for m in broker.middleware if isinstance(m, TimeLimit)), None)
    if isinstance(limit, int | float):
        error.args = Limits(limit / 1000, source="time_limit").exceeded(message.actor_name).args


def check_timeouts(actor_name: str, is_async: bool, options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for limits that could not work."""
    given = [name for name in LIMIT_OPTIONS if options.get(name) is not None]
    if given and not is_async:
        raise ValueError(
            f"Timeout parameters are only supported for async functions. Actor {actor_name!r} has {given[0]}: declare"
            " it with `async def` and await asyncio.to_thread(...) for what blocks, or use Dramatiq's time_limit"
            " (milliseconds)."
        )
    _check_time_limit(actor_name, options)
    hard = _seconds(actor_name, options, "hard_timeout")
    soft = _seconds(actor_name, options, "soft_timeout")
    if soft is not None and hard is None:
        raise ValueError(f"Actor {actor_name!r}: soft_timeout ({soft:g} s) needs a hard_timeout above it.")
    if soft is not None and hard is not None and soft >= hard:
        raise ValueError(f"Actor {actor_name!r}: soft_timeout ({soft:g} s) must be below hard_timeout ({hard:g} s).")
    _check_hook(actor_name, options, soft)


def _seconds(actor_name: str, options: Mapping[str, Any], name: str) -> float | None:
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"Actor {actor_name!r}: {name} is a number of seconds above 0, not {value!r}.")
    return float(value)


def _check_time_limit(actor_name: str, options: Mapping[str, Any]) -> None:
    limit = options.get("time_limit", math.inf)  # Dramatiq's word for no limit
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0:
        raise ValueError(
            f"Actor {actor_name!r}: time_limit is a number of milliseconds above 0, or float('inf'), not {limit!r}."
        )


def _check_hook(actor_name: str, options: Mapping[str, Any], soft: float | None) -> None:
    hook = options.get("on_soft_timeout")
    if hook is not None and not callable(hook):
        raise ValueError(f"Actor {actor_name!r}: on_soft_timeout is a function that takes the context, not {hook!r}.")
    if hook is not None and soft is None:
        raise ValueError(f"Actor {actor_name!r}: on_soft_timeout needs a soft_timeout, after which it is called.")
    if hook is not None and not _takes_one(hook):
        raise ValueError(f"Actor {actor_name!r}: on_soft_timeout is called with the context alone; {hook!r} is not.")


def _takes_one(fn: Callable[..., Any]) -> bool:
    """Whether a function can be called with one argument, as far as its signature can be read."""
    try:
        inspect.signature(fn).bind(None)
    except TypeError:
        return False
    except ValueError:  # Some builtins have none.
        return True
    return True
