"""What follows a failure: another run after a delay, or the dead-letter queue."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from dramatiq.errors import RateLimitExceeded, Retry
from dramatiq.middleware import Shutdown

from relier.errors import SchemaMigrationError
from relier.failure_kinds import ExceptionClasses, FailureKind, classify, declared_kind, retry_after
from relier.store.verdicts import LONGEST

__all__ = ["Backoff", "Decision", "FailureKind", "RetryPolicy", "classify", "decide", "retry_after"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often and how soon to retry: full jitter between `least` and a growing bound, in seconds."""

    retries: int
    least: float
    most: float
    growth: float

    def delay(self, attempt: int, chance: float) -> float:
        """Return the delay before the retry that follows failure number `attempt` (0 for the first)."""
        bound = min(self.most, self.least * self.growth ** min(attempt + 1, MAX_EXPONENT))
        return self.least + (bound - self.least) * chance


#: 20 retries, at most about 2.5 h: outlives a failover, a rate limit, a provider's bad hour.
TRANSIENT_BACKOFF = Backoff(retries=20, least=1.0, most=600.0, growth=3.0)
#: 5 retries, at most about 5 min: nobody knows yet whether trying again helps.
UNCLASSIFIED_BACKOFF = Backoff(retries=5, least=5.0, most=600.0, growth=2.0)
#: So many identical failures in a row of an unclassified task are deterministic: trying again does not help.
IDENTICAL_LIMIT = 3
#: A limiter says nothing about the task, and nothing is counted, so nothing grows: 1 to 10 s.
RATE_LIMIT_BACKOFF = Backoff(retries=0, least=1.0, most=600.0, growth=10.0)
#: Longest wait that a server's retry-after may impose, in seconds: one day.
MAX_RETRY_AFTER = 86_400.0
#: Spread of a server's retry-after, so that its clients do not return all at once.
RETRY_AFTER_JITTER = 0.1

#: Keeps the growing bound a finite float, however often a task failed.
MAX_EXPONENT = 64

_UNSET: Any = object()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What actor and message say about failures; everything unset follows the kind of the failure.

    `max_retries`, `min_backoff_ms`, `max_backoff_ms`, `throws` and `retry_when` are Dramatiq's and win over
    Relier's kinds; `max_retries=None` means without end.
    """

    max_retries: int | None = _UNSET
    min_backoff_ms: float | None = None
    max_backoff_ms: float | None = None
    throws: ExceptionClasses = ()
    retry_when: Callable[[int, BaseException], bool] | None = None
    transient: ExceptionClasses = ()
    deterministic: ExceptionClasses = ()

    @classmethod
    def of(cls, *options: Mapping[str, Any]) -> Self:
        """Build a policy from option mappings: the first that has a usable value for an option decides it."""
        return cls(
            max_retries=_first(options, "max_retries", lambda v: v is None or _is_number(v), _UNSET),
            min_backoff_ms=_first(options, "min_backoff", _is_number),
            max_backoff_ms=_first(options, "max_backoff", _is_number),
            throws=_classes(_first(options, "throws", _classes)),
            retry_when=_first(options, "retry_when", callable),
            transient=_classes(_first(options, "transient", _classes)),
            deterministic=_classes(_first(options, "deterministic", _classes)),
        )

    @property
    def decides_retries(self) -> bool:
        """Whether it says by itself how often to retry: then identical failures stop nothing."""
        return self.limits_retries or self.retry_when is not None

    @property
    def limits_retries(self) -> bool:
        """Whether `max_retries` was set, be it to None."""
        return self.max_retries is not _UNSET

    def declares(self, exc: BaseException) -> bool:
        """Say whether the actor itself named this exception's kind."""
        return declared_kind(exc, transient=self.transient, deterministic=self.deterministic) is not None

    def backoff(self, base: Backoff) -> Backoff:
        """Return `base` with the bounds and the number that were set."""
        least = base.least if self.min_backoff_ms is None else self.min_backoff_ms / 1000
        most = base.most if self.max_backoff_ms is None else self.max_backoff_ms / 1000
        retries = self.max_retries if self.limits_retries and self.max_retries is not None else base.retries
        if self.min_backoff_ms is None:
            least = min(least, most)
        return Backoff(retries, least, max(least, most), base.growth)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a failed task."""

    retry: bool
    #: Seconds until the retry; 0 when there is none.
    delay_seconds: float
    #: The name of the exception's type, also when retries are exhausted.
    reason: str
    kind: FailureKind
    #: False when the run does not count as a failed attempt.
    counts_attempt: bool = True
    #: Whether the task ends without having asked for it by `throws` (Dramatiq's `on_retry_exhausted`).
    exhausted: bool = False
    #: So many identical failures in a row end the task all the same; 0: no number does.
    identical_limit: int = 0

    @property
    def blames_code(self) -> bool:
        """Whether it speaks against the actor's code: it neither passes by itself, nor did the actor expect it."""
        return self.kind is not FailureKind.TRANSIENT and self.counts_attempt and (self.retry or self.exhausted)


def decide(
    exc: BaseException,
    attempt: int,
    options: RetryPolicy | None = None,
    *,
    chance: Callable[[], float] = random.random,
) -> Decision:
    """Decide whether a failed task is retried and when.

    `attempt` is the number of counted failures before this one: 0 for the first. `chance` returns the jitter,
    from 0 to 1.
    """
    policy = options or RetryPolicy()
    if isinstance(exc, SchemaMigrationError):  # Before the actor ran, whose options say nothing about it.
        return Decision(False, 0.0, type(exc).__name__, FailureKind.DETERMINISTIC, exhausted=True)
    kind = classify(exc, transient=policy.transient, deterministic=policy.deterministic)
    if isinstance(exc, policy.throws):
        return Decision(False, 0.0, type(exc).__name__, kind)
    if isinstance(exc, Shutdown):
        return Decision(True, 0.0, type(exc).__name__, kind, counts_attempt=False)
    counts = not isinstance(exc, RateLimitExceeded)
    if not _may_retry(exc, attempt, policy, kind, counts):
        return Decision(False, 0.0, type(exc).__name__, kind, counts, exhausted=True)
    delay = _delay(exc, attempt if counts else 0, policy, kind, chance())
    stops = counts and kind is FailureKind.UNCLASSIFIED and not policy.decides_retries
    limit = IDENTICAL_LIMIT if stops else 0
    return Decision(True, delay, type(exc).__name__, kind, counts, identical_limit=limit)


def _may_retry(exc: BaseException, attempt: int, policy: RetryPolicy, kind: FailureKind, counts: bool) -> bool:
    if policy.retry_when is not None:
        asked = _ask(policy.retry_when, attempt, exc)
        if asked is not None:
            return asked
    if kind is FailureKind.DETERMINISTIC and not (policy.limits_retries and not policy.declares(exc)):
        return False
    if not counts:
        return policy.max_retries != 0
    if policy.limits_retries:
        return policy.max_retries is None or attempt < policy.max_retries
    return attempt < _base(kind, exc).retries


def _ask(retry_when: Callable[[int, BaseException], bool], attempt: int, exc: BaseException) -> bool | None:
    """Return the predicate's answer, or None when it failed: its own error must not lose the task."""
    try:
        return bool(retry_when(attempt, exc))
    except Exception:
        logger.warning("The actor's retry_when failed; the default policy applies.", exc_info=True)
        return None


def _base(kind: FailureKind, exc: BaseException) -> Backoff:
    if isinstance(exc, RateLimitExceeded):
        return RATE_LIMIT_BACKOFF
    return TRANSIENT_BACKOFF if kind is FailureKind.TRANSIENT else UNCLASSIFIED_BACKOFF


def _delay(exc: BaseException, attempt: int, policy: RetryPolicy, kind: FailureKind, chance: float) -> float:
    if isinstance(exc, Retry) and isinstance(exc.delay, int | float):
        return max(0.0, min(exc.delay / 1000, LONGEST))
    delay = policy.backoff(_base(kind, exc)).delay(attempt, chance)
    asked = retry_after(exc)
    if asked is None:
        return delay
    limit = MAX_RETRY_AFTER if policy.max_backoff_ms is None else policy.max_backoff_ms / 1000
    return max(delay, min(limit, asked * (1 + RETRY_AFTER_JITTER * chance)))


def _first(options: tuple[Mapping[str, Any], ...], name: str, usable: Callable[[Any], Any], default: Any = None) -> Any:
    """Return the first usable value of an option: a message's options may be anything that was decoded."""
    return next((o[name] for o in options if name in o and usable(o[name])), default)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _classes(value: Any) -> ExceptionClasses:
    candidates = value if isinstance(value, tuple | list | set | frozenset) else (value,)
    return tuple(c for c in candidates if isinstance(c, type) and issubclass(c, BaseException))
