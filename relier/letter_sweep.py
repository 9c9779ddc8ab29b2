"""What sweepers do about dead letters: warn when there are many, and discard what is too old, if that is wanted."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from relier import failpoints
from relier.settings import Settings
from relier.store import Store

logger = logging.getLogger(__name__)

#: How often (s) dead letters are counted, and looked through for old ones.
INTERVAL = 5.0
#: How often (s) it is said that there are too many.
ALARM_INTERVAL = 600.0


def alarm(letters: int, settings: Settings) -> str:
    """Return what to say of so many dead letters; '' while there are not too many."""
    if not settings.dlq_alarm or letters < settings.dlq_alarm:
        return ""
    return f"There are {letters} dead letters; the alarm is set at {settings.dlq_alarm} (RELIER_DLQ_ALARM)."


class LetterSweep:
    """Tends the dead letters of one store, a moment at a time.

    Settings: `RELIER_DLQ_ALARM`, `RELIER_DLQ_RETENTION`.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._next = 0.0
        self._alarmed = -ALARM_INTERVAL
        #: Shards that may have more old letters.
        self._left: list[int] = []

    def tend(self, shards: Sequence[int], *, count: bool) -> None:
        """Discard some of the old letters of `shards`; `count` the letters of all when it is time. Raises as Redis."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + INTERVAL
            self._left = list(shards) if self._settings.dlq_retention else []
            if count and self._settings.dlq_alarm:
                self._count()
        if self._left:
            self._expire([shard for shard in self._left if shard in shards])

    def _expire(self, shards: Sequence[int]) -> None:
        failpoints.hit("before-expire")
        discarded = self._store.tasks.expire_letters(shards, self._settings.dlq_retention)
        failpoints.hit("expired")
        self._left = [shard for shard, number in discarded.items() if number]
        if number := sum(discarded.values()):
            logger.info("Discarded dead letters that were older than RELIER_DLQ_RETENTION.", extra={"count": number})

    def _count(self) -> None:
        letters = self._store.tasks.count_letters()
        text, now = alarm(letters, self._settings), time.monotonic()
        if not text:
            self._alarmed = now - ALARM_INTERVAL
        elif now - self._alarmed >= ALARM_INTERVAL:
            self._alarmed = now
            extra = {"letters": letters, "alarm": self._settings.dlq_alarm}
            logger.warning("There are as many dead letters as RELIER_DLQ_ALARM says, or more.", extra=extra)
