"""Lets threads that call at the same moment share one round trip."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

Command = tuple[Any, ...]


class _Call:
    __slots__ = ("command", "elected", "error", "reply", "wake")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.reply: Any = None
        self.error: BaseException | None = None
        #: Whether the caller is to send the next batch when it wakes.
        self.elected = False
        self.wake = threading.Lock()
        self.wake.acquire()


class SharedLine:
    """Sends what several threads want to send in one batch: whoever finds the line free sends for all who wait.

    Parameters:
      exchange: sends commands and returns their replies, on the calling thread; one call at a time.
    """

    def __init__(self, exchange: Callable[[Sequence[Command]], list[Any]]) -> None:
        self._exchange = exchange
        self._mutex = threading.Lock()
        self._waiting: list[_Call] = []
        self._busy = False

    def call(self, command: Command) -> Any:
        """Return the reply to one command; raises what the exchange raised for the batch it was in."""
        call = _Call(command)
        with self._mutex:
            self._waiting.append(call)
            call.elected, self._busy = not self._busy, True
        if not call.elected:
            self._await(call)
        if call.elected:
            self._send()
        if call.error is not None:
            raise call.error
        return call.reply

    def _await(self, call: _Call) -> None:
        try:
            call.wake.acquire()
        except BaseException:  # Dramatiq interrupts worker threads; the others must not wait for this one.
            if call.elected:
                self._pass_on()
            raise

    def _send(self) -> None:
        with self._mutex:
            batch, self._waiting = self._waiting, []
        try:
            replies = self._exchange([call.command for call in batch])
            for call, reply in zip(batch, replies, strict=True):
                call.reply = reply
        except BaseException as error:
            for call in batch:
                call.error = error if isinstance(error, Exception) else ConnectionError("interrupted")
            raise
        finally:
            for call in batch:
                call.wake.release()
            self._pass_on()

    def _pass_on(self) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting[0].elected = True
                self._waiting[0].wake.release()
            else:
                self._busy = False
