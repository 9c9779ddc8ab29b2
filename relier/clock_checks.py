"""Look at clocks: what `rl doctor` says of this host's."""

from __future__ import annotations

import time
from collections.abc import Iterator

import redis

from relier.preflight import Check, Finding
from relier.purging import MARGIN
from relier.settings import Settings
from relier.store import Store
from relier.store.survey import Survey


def clock_check(store: Store) -> Check:
    """Return the check that this host's clock and that of the store's Redis agree, as far as the answer's way tells."""

    def check(_: redis.Redis, __: Settings) -> Iterator[Finding]:
        before = time.time()
        server = Survey(store).now()
        after = time.time()
        off = server - after if server > after else server - before if server < before else 0.0
        if abs(off) <= MARGIN:
            yield Finding("ok", "clock", "This host's clock and that of Redis agree.")
            return
        word = "behind" if off > 0 else "ahead of"
        yield Finding(
            "warning",
            "clock",
            f"This host's clock is {abs(off):.1f} s {word} that of Redis: max_age and the times in logs compare the"
            " two, and so does a purge of what plain Dramatiq enqueued from here.",
            "Synchronise the clocks (NTP).",
        )

    return check
