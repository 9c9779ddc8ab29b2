"""The permits of one limit that a process holds."""

from __future__ import annotations

from relier.store.admissions import Lease, Limit, Report

#: A process leases at most one part in so many of a limit at once, so that a killed one takes little with it.
PARTS = 200
#: … and never more permits than this.
MOST_AT_ONCE = 1000
#: A refusal is believed for so long (s) at most: others may give permits back, and limits may be reset.
BELIEVED = 0.25


class Meter:
    """How many tasks a process may still admit, and until when. Not thread-safe.

    Times are readings of the monotonic clock. A lease that is used up early makes the next one twice as large; when a
    sub-bucket is over, the next lease is as large as what was used in it.

    Parameters:
      limit: what is metered.
    """

    __slots__ = (
        "bucket",
        "chunk",
        "epoch",
        "forced",
        "forced_at",
        "leased",
        "limit",
        "most",
        "opens_at",
        "permits",
        "refused",
        "refused_until",
        "until",
        "used",
    )

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self.most = max(1, min(MOST_AT_ONCE, limit.most // PARTS))
        self.chunk = 1
        #: Unused permits of the last lease, how many were leased in its sub-bucket, and when they end.
        self.permits = 0
        self.leased = 0
        self.until = 0.0
        self.epoch = 0
        self.bucket = 0
        #: How many permits the store counted when it last answered.
        self.used = 0
        #: The smallest number of permits that was refused, until when that is believed, and when they may be free.
        self.refused = 0
        self.refused_until = 0.0
        self.opens_at = 0.0
        #: Tasks let through without a permit that the store does not know of, and since when.
        self.forced = 0
        self.forced_at = 0.0

    def take(self, count: int, now: float) -> bool:
        """Use permits, if there are enough."""
        if self.permits < count or now >= self.until:
            return False
        self.permits -= count
        return True

    def refuses(self, count: int, now: float) -> bool:
        """Whether the store would say no, as far as is known."""
        if now < self.refused_until and count >= self.refused:
            return not (self.permits >= count and now < self.until)
        return False

    def give_back(self, count: int) -> None:
        """Keep permits for other tasks that were taken in vain."""
        self.permits += count

    def force(self, count: int, now: float) -> None:
        """Note tasks that were let through without a permit."""
        if not self.forced:
            self.forced_at = now
        self.forced += count

    def wanted(self, count: int, now: float) -> int:
        """Return how many permits to ask for when `count` are needed."""
        if now < self.until:
            self.chunk = min(2 * self.chunk, self.most) if not self.permits else self.chunk
        elif self.leased:
            self.chunk = max(1, min(self.leased - self.permits, self.most))
        return max(count, self.chunk)

    def report(self, now: float, **counters: int) -> Report:
        """Return what the store is to be told with the next request. The unused permits are gone with it."""
        if self.forced and now - self.forced_at > self.limit.window:
            self.forced = 0  # They are no longer in the window.
        told = Report(self.forced, self.epoch, self.bucket, self.permits, **counters)
        self.leased -= self.permits
        self.permits = 0
        return told

    def receive(self, lease: Lease, count: int, asked_at: float, told: Report) -> bool:
        """Note the store's answer, and use `count` of its permits. False: it said no."""
        self.forced -= told.forced
        self.used = lease.used
        if lease.opens_in > 0 or lease.granted < count:
            self.refused, self.opens_at = count, asked_at + lease.opens_in
            self.refused_until = asked_at + min(lease.opens_in, BELIEVED)
            return False
        self.refused_until = 0.0
        self.leased = lease.granted + (self.leased if lease.bucket == self.bucket else 0)
        self.permits = lease.granted - count
        self.until = asked_at + lease.usable
        self.epoch, self.bucket = lease.epoch, lease.bucket
        return True
