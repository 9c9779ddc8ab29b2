"""Lets threads that call at the same moment share one round trip."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

#: What goes over the wire.
Command = Any

#: How long (s) a caller waits for a sign before it looks itself whether anybody is sending.
PATIENCE = 0.1


class _Call:
    __slots__ = ("answered", "commands", "error", "replies", "wake")

    def __init__(self, commands: Sequence[Command]) -> None:
        self.commands = commands
        self.replies: Sequence[Any] = ()
        self.error: BaseException | None = None
        self.answered = False
        #: Released when the call is answered, or when its caller shall send.
        self.wake = threading.Lock()
        self.wake.acquire()

    def nudge(self) -> None:
        """Wake the caller; only whoever holds the line does."""
        if self.wake.locked():
            self.wake.release()


class SharedLine:
    """Sends what several threads want to send in one batch: whoever finds the line free sends for all who wait.

    Dramatiq interrupts worker threads between any two instructions, so nothing here depends on a caller that goes on:
    a lost wake-up costs `PATIENCE`, and what an interrupted sender took along fails and may be sent again.

    Parameters:
      exchange: sends commands and returns their replies, on the calling thread; one call at a time.
    """

    def __init__(self, exchange: Callable[[Sequence[Command]], list[Any]]) -> None:
        self._exchange = exchange
        self._line = threading.Lock()
        self._waiting: deque[_Call] = deque()

    def call(self, *commands: Command) -> Sequence[Any]:
        """Return the replies to some commands, sent one after the other in the same batch.

        Raises what the exchange raised for that batch.
        """
        call = _Call(commands)
        self._waiting.append(call)
        if self._line.locked():
            call.wake.acquire(timeout=PATIENCE)
        if not call.answered:
            with self._line:
                if not call.answered:
                    self._send(call)
        if call.error is not None:
            raise call.error
        return call.replies

    def _send(self, own: _Call) -> None:
        batch: list[_Call] = []
        try:
            while self._waiting:
                batch.append(self._waiting.popleft())
            if own not in batch:
                raise ConnectionError("an interrupted thread took this call along")
            replies = self._exchange([command for call in batch for command in call.commands])
            at = 0
            for call in batch:
                call.replies = replies[at : at + len(call.commands)]
                call.answered = True
                at += len(call.commands)
        except BaseException as error:
            for call in batch:
                if not call.answered:
                    call.error = error if isinstance(error, Exception) else ConnectionError("interrupted")
                    call.answered = True
            raise
        finally:
            if self._waiting:  # First whoever sends next: the store works while the others do.
                self._waiting[0].nudge()
            for call in batch:
                call.nudge()
