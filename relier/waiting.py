"""Waits for a task's end, from any process that reaches the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import redis

from relier.errors import ResultMissing, ResultTimeout, StoreUnavailableError, TaskFailedError
from relier.hooks import decode_failure
from relier.results import decoded_result
from relier.store.connection import UNAVAILABLE
from relier.store.known import Known

T = TypeVar("T")

#: The shortest and the longest pause (s) between two looks; in between, a tenth of the time waited so far.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.01, 0.5


class Wait:
    """One wait for the end of a task.

    Parameters:
      task_id: names the task.
      look: looks at the task in a shard, or everywhere; raises `StoreUnavailableError`.
      timeout: seconds; None waits for ever.
      shard: where the task is; None: not known.
      keeps: whether a result is going to be kept; None: not known.
    """

    def __init__(
        self,
        task_id: str,
        look: Callable[[int | None], Known],
        timeout: float | None,
        shard: int | None = None,
        keeps: bool | None = None,
    ) -> None:
        self.task_id = task_id
        self._look = look
        self._timeout = timeout
        self._shard = shard
        self._keeps = keeps
        self._known: Known | None = None
        self._away: StoreUnavailableError | None = None
        #: What the actor returned, once `pauses` has come to its end.
        self.result: Any = None

    def pauses(self) -> Iterator[float]:
        """Look at the task until it has ended; yields how long (s) to pause before each further look.

        Raises `TaskFailedError`, `ResultMissing`, and when time is over `ResultTimeout`, or `StoreUnavailableError`
        while the store is away.
        """
        start = time.monotonic()
        while not self._has_ended():
            waited = time.monotonic() - start
            pause = min(max(SHORTEST_PAUSE, waited / 10), LONGEST_PAUSE)
            if self._timeout is not None and waited >= self._timeout:
                raise self._away or ResultTimeout(self._too_long())
            yield pause if self._timeout is None else min(pause, self._timeout - waited)

    def _has_ended(self) -> bool:
        try:
            known = self._look(self._shard)
        except StoreUnavailableError as error:
            self._away = error
            return False
        self._known, self._away = known, None
        if known.state:
            self._shard = known.shard
        return self._take(known)

    def _take(self, known: Known) -> bool:
        """Take the result if there is one; raise when there will be none."""
        if known.kept:
            self.result = decoded_result(known.kept, self.task_id)
            return True
        if known.outcome == "dead":
            raise TaskFailedError(known.reason, failure_text(known))
        if known.outcome == "discarded":
            raise TaskFailedError(f"discarded: {known.reason}")
        if self._keeps is False:
            raise ResultMissing(
                f"Task {self.task_id}: its actor keeps no results. Declare it with store_results=True to wait for them."
            )
        if known.outcome == "completed":
            raise ResultMissing(
                f"Task {self.task_id} has completed, but no result is kept: its actor keeps none (store_results=True),"
                " or its time is over (RELIER_RESULT_TTL)."
            )
        return False

    def _too_long(self) -> str:
        known = self._known.status if self._known else ""
        if known:
            return f"Task {self.task_id} has not ended within {self._timeout:g} s; it is {known}."
        return (
            f"Task {self.task_id} has not ended within {self._timeout:g} s, and nothing is known of it: it waits in the"
            " broker, or it ended and was forgotten."
        )


def failure_text(known: Known) -> str:
    """Return the text of a dead letter's last failure; its type is the reason."""
    if known.reason == "max_resurrections_exceeded":
        return "its worker died in each of its runs"
    try:
        failure = decode_failure(known.failure)
    except Exception:  # An encoder of the application's may raise anything.
        return ""
    text = str(failure.get("message", ""))
    return text if failure.get("type", known.reason) == known.reason else f"{failure['type']}: {text}"


def asked(question: Callable[[], T]) -> T:
    """Ask the store, once more when the connection was lost: it may have been idle for long.

    Raises `StoreUnavailableError` when it is away.
    """
    try:
        try:
            return question()
        except redis.ConnectionError:
            return question()
    except UNAVAILABLE as error:
        raise StoreUnavailableError(f"The store is away ({type(error).__name__}).") from error
