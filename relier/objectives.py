"""Service level objectives of actors: which share of their tasks is to succeed, and within which time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, Message

from relier.envelope import OPTION
from relier.queues import is_internal
from relier.store.objective import Objective

if TYPE_CHECKING:
    from relier.runs import Run

#: The options of actors.
OPTIONS = ("slo_target", "slo_latency")
#: The longest time (s) that `slo_latency` may be: 30 days, over which budgets are reckoned.
LONGEST = 30 * 86_400.0
#: Beyond it a double does not tell whole numbers (here: microseconds) apart.
_HUGE = 2**53
#: The field of a stamp with the time (ms) that its producer asked for a delay; only of actors with `slo_latency`.
DELAY = "w"


def check_options(actor_name: str, options: Mapping[str, Any]) -> None:
    """Raise `ValueError` for an objective that could not be."""
    target, latency = (options.get(name) for name in OPTIONS)
    if target is not None and not _is_target(target):
        meant = _rate(target)
        raise ValueError(f"Actor {actor_name!r}: slo_target is a rate above 0 and below 1, not {target!r}{meant}.")
    if latency is not None and not _is_latency(latency):
        raise ValueError(
            f"Actor {actor_name!r}: slo_latency is a number of seconds above 0, at most {LONGEST:.0f}, not {latency!r}."
        )


def _is_target(value: Any) -> bool:
    return _is_number(value) and 0 < value < 1


def _is_latency(value: Any) -> bool:
    return _is_number(value) and 0 < value <= LONGEST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_HUGE < value < _HUGE


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else 0.0


def _rate(value: Any) -> str:
    """Say what was probably meant: 99.9 is one of a hundred."""
    return f"; {value:g} % is {value / 100:.10g}" if _is_number(value) and 1 < value < 100 else ""


def objective_of(options: Mapping[str, Any]) -> Objective:
    """Return the objective that an actor's options set. What cannot be one is none: a plain actor's are not checked."""
    target, latency = (options.get(name) for name in OPTIONS)
    return Objective(target if _is_target(target) else None, latency if _is_latency(latency) else None)


def objectives_of(broker: Broker) -> dict[str, Objective]:
    """Return what the actors of a broker promise; those that set nothing are among them, for they may have before."""
    actors = broker.actors.values()
    return {actor.actor_name: objective_of(actor.options) for actor in actors if not is_internal(actor.queue_name)}


def note_delay(broker: Broker, message: Message[Any], delay: int | None) -> None:
    """Note in the stamp of a new task that it was to wait `delay` ms, where its latency is an objective."""
    if delay and delay > 0 and _latency(broker, message.actor_name) is not None:
        message.options[OPTION][DELAY] = int(delay)


def late_from(broker: Broker, run: Run) -> int:
    """Return from when on (µs, server's clock) a task is late; 0 where that is no objective, or cannot be told.

    The time runs from the push, or from when a delay was over. Retries, crashes and releases do not begin it anew.
    """
    latency = _latency(broker, run.actor_name)
    if latency is None or not run.sending.created:
        return 0
    stamp, eta = run.message.options.get(OPTION), run.message.options.get("eta")
    delay = stamp.get(DELAY) if isinstance(stamp, dict) else None
    begins = max(run.sending.created + _number(delay) / 1000, _number(eta) / 1000)
    late = (begins + latency) * 1e6
    return round(late) if 0 < late < _HUGE else 0


def _latency(broker: Broker, actor_name: str) -> float | None:
    actor = broker.actors.get(actor_name)
    latency = None if actor is None else actor.options.get("slo_latency")
    return latency if latency is not None and _is_latency(latency) else None
