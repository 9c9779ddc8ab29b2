"""The store's time, as far as a process knows it: each answer to a request for admission tells it, at no cost."""

from __future__ import annotations

import math
import time

#: By which part this process's monotonic clock and the server's may differ in speed: NTP slows clocks by half of it.
DRIFT = 0.001
#: An answer that took longer (s) tells the time too vaguely to replace an earlier one.
LONGEST = 0.25


class ServerClock:
    """Tells when a message is enqueued, so that purge marks compare times of one clock.

    It is never behind the server's: it counts from before the server was asked, and a little too fast. What it is ahead
    by is shorter than how far marks are ahead (see `relier/purging.py`). Until the store has answered once, it is
    this host's clock.
    """

    def __init__(self) -> None:
        #: The server's time (s) in its last answer, and when it was asked by `_steady`.
        self._heard: tuple[float, float] | None = None

    def heard(self, server_time: float, asked_at: float) -> None:
        """Note an answer that has just come. Times are seconds; `asked_at` of the monotonic clock."""
        if self._heard is None or time.monotonic() - asked_at <= LONGEST:
            self._heard = (server_time, _steady() - (time.monotonic() - asked_at))

    def now_ms(self) -> int:
        """Return the time in milliseconds since the epoch, rounded up."""
        heard = self._heard
        if heard is None:
            return math.ceil(time.time() * 1000)
        server_time, asked_at = heard
        return math.ceil((server_time + (_steady() - asked_at) * (1 + DRIFT)) * 1000)


def _steady() -> float:
    """Return a monotonic time (s) that goes on while this machine is suspended, where the system has one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)
