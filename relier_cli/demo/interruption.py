"""Ctrl-C and SIGTERM: noted when they come, obeyed where it is safe, so that nothing is left running."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """The user wants the demo to end."""


class Interruption:
    """Whether the user wants the demo to end. A second signal changes nothing: cleaning up goes on, and is quick."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note signals instead of dying of them."""
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise `Interrupted` if a signal came."""
        if self.signal is not None:
            raise Interrupted

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or signal.Signals(number)
