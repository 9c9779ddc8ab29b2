"""When a worker was gone, when the fleet knew, and when it came back."""

from __future__ import annotations

from typing import Any

from relier_cli.chaos.stage import Stage
from relier_cli.chaos.verdict import Steps


class Death:
    """What is seen of one worker from outside; times are seconds after the experiment's zero.

    Parameters:
      told: what it told of itself: host and process id tell it when it comes back under another identity.
    """

    def __init__(self, stage: Stage, worker: str, told: dict[str, Any], steps: Steps) -> None:
        self._fleet = stage.store.fleet
        self._worker = worker
        self._told = told
        self._steps = steps
        self.gone: float | None = None
        self.declared: float | None = None
        self.back: float | None = None
        #: Its identity from then on.
        self.back_as: str | None = None

    def look(self) -> None:
        if self.gone is None and not self._fleet.present([self._worker])[self._worker]:
            self.gone = self._steps.now
            self._steps.note("its control channel is silent")
        if self.declared is None and self._worker not in self._fleet.workers():
            self.declared = self._steps.now
            self._steps.note("it is declared dead")

    def look_for_its_return(self) -> bool:
        """Whether it is back, and can be reached."""
        fleet = self._fleet.workers()
        names = [name for name, told in fleet.items() if self._is_it(told) and not told.get("state")]
        there = [name for name, is_there in self._fleet.present(names).items() if is_there]
        if there and self.back_as is None:
            self.back, self.back_as = self._steps.now, there[0]
            self._steps.note(f"it is back as {there[0]}")
        return self.back_as is not None

    def _is_it(self, told: dict[str, Any]) -> bool:
        return (told.get("host"), told.get("pid")) == (self._told.get("host"), self._told.get("pid"))
