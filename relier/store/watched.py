"""How long this process has watched each shard, by which the store forgets ended tasks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Watched:
    """Measures the time between two looks at a shard on the monotonic clock; jumps of any wall clock are not in it.

    Parameters:
      clock: returns seconds that never go back. Defaults to `time.monotonic`.
    """

    clock: Callable[[], float] = time.monotonic
    _marks: dict[int, tuple[int, float]] = field(default_factory=dict)

    def since(self, shard: int) -> tuple[int | str, int]:
        """Return the shard's age as last seen ('' before the first look), and the microseconds watched since then."""
        if shard not in self._marks:
            return "", 0
        age, at = self._marks[shard]
        return age, int((self.clock() - at) * 1_000_000)

    def note(self, shard: int, age: int, counted: bool) -> None:
        """Take in the reply of a look: the age now. Time that was not counted goes on counting."""
        if counted:
            self._marks[shard] = (age, self.clock())
