"""Lets threads that call at the same moment share one round trip."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

Command = tuple[Any, ...]

#: How long (s) a caller waits for a sign before it looks itself whether anybody is sending.
PATIENCE = 0.1


class _Call:
    __slots__ = ("answered", "command", "error", "reply", "wake")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.reply: Any = None
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

    def call(self, command: Command) -> Any:
        """Return the reply to one command; raises what the exchange raised for the batch it was in."""
        call = _Call(command)
        self._waiting.append(call)
        if self._line.locked():
            call.wake.acquire(timeout=PATIENCE)
        if not call.answered:
            with self._line:
                if not call.answered:
                    self._send(call)
        if call.error is not None:
            raise call.error
        return call.reply

    def _send(self, own: _Call) -> None:
        batch: list[_Call] = []
        try:
            while self._waiting:
                batch.append(self._waiting.popleft())
            if own not in batch:
                raise ConnectionError("an interrupted thread took this call along")
            for call, reply in zip(batch, self._exchange([call.command for call in batch]), strict=True):
                call.reply, call.answered = reply, True
        except BaseException as error:
            for call in batch:
                if not call.answered:
                    call.error = error if isinstance(error, Exception) else ConnectionError("interrupted")
                    call.answered = True
            raise
        finally:
            for call in batch:
                call.nudge()
            if self._waiting:
                self._waiting[0].nudge()
