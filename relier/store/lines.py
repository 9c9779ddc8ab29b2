"""The lines that a process's threads share to send what they have to send at the same moment."""

from __future__ import annotations

import threading
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from relier.store.shared_line import SharedLine

if TYPE_CHECKING:
    from relier.store.connection import ScriptRunner

#: How many lines a process has at most: as many as Dramatiq has threads by default. Further threads share them.
LINES = 8


class Lines:
    """The lines that a process's threads share, each with a connection of its own.

    With a single one the store idles while the thread that sends next wakes up.
    """

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner
        self._lines: list[SharedLine] = []
        self._made = threading.Lock()
        self._threads = count()
        self._local = threading.local()

    def mine(self) -> SharedLine:
        """Return the calling thread's line, always the same one."""
        line: SharedLine | None = getattr(self._local, "line", None)
        if line is None:
            with self._made:
                number = next(self._threads) % LINES
                line = self._lines[number] if number < len(self._lines) else self._another()
                self._local.line = line
        return line

    def _another(self) -> SharedLine:
        """Open another line, to the server that the others lead to: nobody would notice that it is a new one."""
        line = SharedLine(partial(self._runner._exchange_shared, self._runner._new_connection()))
        if self._lines:
            greetings = self._runner._greetings()
            line.call(*greetings)
            self._lines[0].call(*greetings)
        self._lines.append(line)
        return line

    def used(self) -> list[SharedLine]:
        return list(self._lines)
