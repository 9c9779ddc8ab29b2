"""Tasks that are pushed all the time while something goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.harness import Harness


class Load:
    """Pushes short tasks, one every `pause` seconds at most; `sent` are those whose push returned.

    With `flaky_every` one task in so many fails at its first run.
    """

    def __init__(self, fleet: Harness, pause: float = 0.002, flaky_every: int = 0) -> None:
        self.fleet = fleet
        self.sent: list[str] = []
        self.unsure = 0
        self._pause = pause
        self._flaky_every = flaky_every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._push, daemon=True)

    def _push(self) -> None:
        actors = self.fleet.actors
        while not self._over.wait(self._pause):
            number = len(self.sent)
            is_flaky = self._flaky_every and number % self._flaky_every == 0
            actor = actors.flaky if is_flaky else (actors.quick, actors.aquick)[number % 2]
            try:
                self.sent.append(actor.push(1 if is_flaky else number).id)
            except Exception:  # Whatever the broker raises: it may have arrived.
                self.unsure += 1

    @contextmanager
    def running(self) -> Iterator[Load]:
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join()
