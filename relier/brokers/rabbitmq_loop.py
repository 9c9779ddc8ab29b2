"""A loop of pika's that any thread may drive: one waits for the network, and one at a time runs what is due.

A thread of the loop's own drives it while nobody else does. A thread that waits for an answer drives it meanwhile: so
the answer comes to it without a switch between threads, which costs more than all the rest of a publish.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from dramatiq.worker import WorkerThread
from pika.adapters.select_connection import EPollPoller, IOLoop

logger = logging.getLogger(__name__)

#: For so long (s) after a call the loop is left to callers, who drive it themselves.
LEFT = 0.1
#: Longest wait (s) of a caller for the network, between two looks at its own deadline.
LOOK = 0.5


class SharedLoop:
    """Drives an `IOLoop`. Everything of pika's that belongs to it is touched with `turn` held only.

    Parameters:
      busy: whether somebody waits for an answer; then the loop is always driven.
      failed: called, with `turn` held, with what a callback raised.
    """

    def __init__(self, busy: Callable[[], bool], failed: Callable[[Exception], None]) -> None:
        self.inner: Any = IOLoop()
        self._poller = self.inner._poller
        self._busy = busy
        self._failed = failed
        #: Held by whoever runs callbacks; free while everybody waits for the network.
        self.turn = threading.Lock()
        #: Held by whoever waits for the network.
        self._seat = threading.Lock()
        #: Set when the loop's own thread is needed.
        self._needed = threading.Event()
        self._called = 0.0

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called soon, by whoever drives. From any thread."""
        self.inner.add_callback_threadsafe(function)
        self._needed.set()

    @property
    def lets_drive(self) -> bool:
        """Whether the calling thread may drive.

        Dramatiq interrupts its worker threads by raising in them, anywhere: not in the middle of pika's code. Pollers
        other than Linux's are not known to bear two threads.
        """
        known = isinstance(self._poller, EPollPoller)
        return known and not isinstance(threading.current_thread(), WorkerThread)

    def run_and_drive(self, function: Callable[[], object], over: Callable[[], bool], end: float) -> None:
        """Call a function, then drive until all is over or the time has come, unless somebody else drives."""
        self._called = time.monotonic()
        try:
            self._run(function)
            if self._seat.acquire(blocking=False):
                try:
                    while not over() and not self._poller._stopping and time.monotonic() < end:
                        self._step(LOOK)
                finally:
                    self._seat.release()
        except BaseException as error:  # As when a signal's handler raised: what was half done must not go on.
            reason = error if isinstance(error, Exception) else RuntimeError(f"interrupted: {type(error).__name__}")
            self.call(lambda: self._failed(reason))
            raise
        if self._busy():
            self._needed.set()

    def drive(self) -> None:
        """Drive until the loop is stopped: what its own thread does."""
        self.inner.activate_poller()
        while not self._poller._stopping:
            if self._is_left_to_callers():
                self._needed.wait(LEFT)
                continue
            self._needed.clear()
            try:
                with self._seat:
                    self._step()
            except Exception as error:
                self._run(partial(self._failed, error))
        with self._seat:
            self.inner.close()

    def _is_left_to_callers(self) -> bool:
        if self._needed.is_set() or not isinstance(self._poller, EPollPoller):
            return False
        recently = time.monotonic() - self._called < LEFT
        return self._seat.locked() or (recently and not self._busy())

    def _step(self, longest: float = 5.0) -> None:
        """Wait for the network, then run what is due. The seat is held."""
        if not isinstance(self._poller, EPollPoller):
            self._run(self._poll_alone)
            return
        with self.turn:
            handlers = dict(self._poller._fd_handlers)
            wait = min(longest, self._poller._get_max_wait())
        events = self._poller._poll.poll(wait)
        self._run(partial(self._dispatch, events, handlers))

    def _dispatch(self, events: list[tuple[int, int]], handlers: dict[int, Any]) -> None:
        """Handle what came; not what came on a socket whose number has another one meanwhile."""
        now = self._poller._fd_handlers
        self._poller._dispatch_fd_events({fd: event for fd, event in events if now.get(fd) is handlers.get(fd)})
        self.inner.process_timeouts()

    def _poll_alone(self) -> None:
        self.inner.poll()
        self.inner.process_timeouts()

    def _run(self, function: Callable[[], object]) -> None:
        with self.turn:
            try:
                function()
            except Exception as error:  # pika's callbacks raise into the loop what they did not expect.
                self._failed(error)
