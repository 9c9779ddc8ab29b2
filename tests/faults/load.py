"""Tasks that are pushed all the time while something goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.harness import Harness


class Load:
    """Pushes short tasks, one every `pause` seconds at most; `sent` are those whose push returned."""

    def __init__(self, fleet: Harness, pause: float = 0.002) -> None:
        self.fleet = fleet
        self.sent: list[str] = []
        self.unsure = 0
        self._pause = pause
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._push, daemon=True)

    def _push(self) -> None:
        actors = (self.fleet.actors.quick, self.fleet.actors.aquick)
        while not self._over.wait(self._pause):
            try:
                self.sent.append(actors[len(self.sent) % 2].push(len(self.sent)).id)
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
