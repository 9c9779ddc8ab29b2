"""What an actor promises, as the fleet tells it."""

from __future__ import annotations

import json
from typing import NamedTuple


class Objective(NamedTuple):
    """What an actor promises. None: nothing of its own."""

    target: float | None = None  #: which rate of its tasks is to succeed
    latency: float | None = None  #: within how many seconds after their push

    def told(self, at: float) -> str:
        """Return it as it is told to the fleet by a worker that began at that time (s); '' when it is none."""
        set_ones = {name: value for name, value in self._asdict().items() if value is not None}
        return json.dumps({"at": at, **set_ones}) if set_ones else ""

    @classmethod
    def of(cls, text: str) -> Objective:
        """Read what was told."""
        told = json.loads(text)
        return cls(told.get("target"), told.get("latency"))
