"""Says the same thing once in a while, about any number of things."""

from __future__ import annotations

import time

#: About how many things are remembered: names in messages may come from anywhere.
REMEMBERED = 1000


class Seldom:
    """Tells whether it is time to say something again.

    Parameters:
      interval: seconds between two times for one thing.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._said: dict[tuple[object, ...], float] = {}

    def may_say(self, *about: object) -> bool:
        """Whether this was not said within the interval; then it counts as said now."""
        now = time.monotonic()
        if now - self._said.get(about, -self._interval) < self._interval:
            return False
        self._said.pop(about, None)  # The oldest are first.
        self._said[about] = now
        while len(self._said) > REMEMBERED:
            self._said.pop(next(iter(self._said)), None)
        return True
