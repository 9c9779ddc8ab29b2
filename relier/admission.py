"""Admission: how many tasks all producers together may enqueue in a window of time."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import redis
from dramatiq import Broker, Message

from relier.admission_limits import Limits
from relier.backlog import Backlog
from relier.errors import RelierStartupError
from relier.meter import Meter
from relier.queues import is_internal
from relier.refusals import rejected, too_deep, too_many
from relier.server_clock import ServerClock
from relier.settings import Settings
from relier.store.admissions import Admissions, Limit, Report, parse_lease
from relier.store.quick_line import QuickLine
from relier.store.quick_lines import QuickLines

logger = logging.getLogger(__name__)

#: Longest time (s) for which a store that hangs delays a push.
PATIENCE = 0.06
#: The same where the broker is the same Redis: the message could not be sent either.
PATIENCE_SHARED = 1.0
#: The warning of a failed check is logged at most once in so many seconds.
WARN_EVERY = 30.0
#: Longest time (s) for which an ending process waits to tell what the store was not told.
LAST_PATIENCE = 0.5
#: How many meters a process keeps; of more, the idle ones are dropped.
METERS_KEPT = 10_000

Needs = Sequence[tuple[Meter, int]]


@dataclass(slots=True)
class _Pending:  # what the store is told with the next request
    admitted: int = 0
    rejected: int = 0
    failed_open: int = 0


class Admission:
    """Decides for one broker of this process which first-hand tasks may be enqueued.

    Parameters:
      broker: whose tasks are counted.
      settings: with the global limit.
      client: makes a Redis client of the store.
      shared: whether messages go to the same Redis, asked on first use.
      depth: returns how many tasks wait in a queue, where that can be told.
    """

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        *,
        client: Callable[[], redis.Redis],
        admissions: Callable[[], Admissions],
        shared: Callable[[], bool],
        depth: Callable[[str], int | None],
    ) -> None:
        self._settings = settings
        self._limits = Limits(broker, settings)
        self._client = client
        self._admissions = admissions
        self._shared = shared
        most = settings.admission_max_depth
        self._backlog = Backlog(depth, most) if most else None
        #: What the store's answers tell of its time.
        self.clock = ServerClock()
        self._begin()
        _existing.add(self)

    def _begin(self) -> None:
        """Hold nothing: at the start, and in a forked child, whose parent's permits are not its own."""
        self._lock = threading.Lock()
        self._leasing = threading.Lock()
        self._global = Meter(self._limits.everything)
        self._meters: dict[Limit, Meter] = {self._limits.everything: self._global}
        self._pending = _Pending()
        self._warned = float("-inf")

    @cached_property
    def _line(self) -> QuickLine | QuickLines:
        return QuickLines(self._client) if self._settings.redis_use_cluster else QuickLine(self._client)

    @cached_property
    def _patience(self) -> float:
        return PATIENCE_SHARED if self._shared() else PATIENCE

    # -- what is asked --------------------------------------------------------------------------------------------

    def admit(self, message: Message[Any]) -> None:
        """Count a first-hand task. Raises `AdmissionRejectedError` when a limit has no permit left.

        Lets it through when the store is away or does not answer in time.
        """
        if is_internal(message.queue_name):
            return
        if self._backlog is not None:
            self._refuse_deep(self._backlog, {message.queue_name}, 1)
        own = self._limits.of(message)
        if not own:
            meter, now = self._global, time.monotonic()
            with self._lock:
                if meter.take(1, now):
                    return
        self._enter(Counter((self._limits.everything, *own)), 1)

    def admit_all(self, messages: Iterable[Message[Any]]) -> None:
        """Count first-hand tasks, all or none. Raises as `admit` does."""
        counted: Counter[Limit] = Counter()
        queues: set[str] = set()
        for message in messages:
            if not is_internal(message.queue_name):
                counted.update((self._limits.everything, *self._limits.of(message)))
                queues.add(message.queue_name)
        if self._backlog is not None:
            self._refuse_deep(self._backlog, queues, counted[self._limits.everything])
        if counted:
            self._enter(counted, counted[self._limits.everything])

    def note(self, message: Message[Any]) -> None:
        """Count a continuation, which is never rejected: inside a hook it would be lost (R11)."""
        try:
            limits = (self._limits.everything, *self._limits.of(message))
        except ValueError:
            limits = (self._limits.everything,)
        self._enter(Counter(limits), 1, always=True)

    # -- how it is answered -------------------------------------------------------------------------------------

    def _enter(self, counted: Counter[Limit], tasks: int, *, always: bool = False) -> None:
        start = time.monotonic()
        for limit, count in counted.items():
            if count > limit.most and not always:
                raise too_many(limit, count)
        if not self._leasing.acquire(timeout=self._patience):
            self._fail_open(counted, tasks, redis.TimeoutError("no answer in time"))
            return
        try:
            refused = self._lease([(self._meter(limit), count) for limit, count in counted.items()], start, always)
        except (redis.RedisError, OSError, RelierStartupError) as error:  # The last: there is no embedded server.
            self._fail_open(counted, tasks, error)
            return
        finally:
            self._leasing.release()
        if refused is None:
            return
        with self._lock:
            if always:
                self._pending.admitted += tasks
            else:
                self._pending.rejected += tasks
        if not always:
            raise rejected(refused.limit, refused.opens_at - time.monotonic())

    def _lease(self, needs: Needs, start: float, always: bool) -> Meter | None:
        """Use a permit of each meter, and lease those that are missing; returns a meter that has none.

        With `always`, those are noted as used without a permit; else nothing was used when one is missing.
        """
        with self._lock:
            now = time.monotonic()
            refused = [(meter, count) for meter, count in needs if meter.refuses(count, now)]
            if refused and not always:
                return _last_to_open(refused)
            taken = [(meter, count) for meter, count in needs if meter.take(count, now)]
        lacking = [need for need in needs if need not in taken and need not in refused]
        try:
            refused += self._ask(lacking, start) if lacking else []
        except BaseException:
            self._return(taken)
            raise
        if always:
            self._force(refused)
        elif refused:
            self._return([need for need in (*taken, *lacking) if need not in refused])
        return _last_to_open(refused)

    def _return(self, needs: Needs) -> None:
        with self._lock:
            for meter, count in needs:
                meter.give_back(count)

    def _force(self, needs: Needs) -> None:
        with self._lock:
            for meter, count in needs:
                meter.force(count, time.monotonic())

    def _ask(self, needs: Needs, start: float) -> list[tuple[Meter, int]]:
        """Lease permits in one round trip and use what is needed of them; returns what was refused."""
        request = self._admissions().request
        with self._lock:
            now = time.monotonic()
            told = [self._told(meter, now) for meter, _ in needs]
            wanted = [meter.wanted(count, now) for meter, count in needs]
        parts = list(zip(needs, wanted, told, strict=True))
        calls = [request(meter.limit, want, count, report) for (meter, count), want, report in parts]
        asked_at = time.monotonic()
        try:
            leases = [parse_lease(reply) for reply in self._line.run(calls, start + self._patience)]
        except BaseException:
            self._keep(told)
            raise
        self.clock.heard(leases[0].at, asked_at)
        with self._lock:
            granted = [
                meter.receive(lease, count, asked_at, report)
                for ((meter, count), _, report), lease in zip(parts, leases, strict=True)
            ]
        return [need for need, given in zip(needs, granted, strict=True) if not given]

    def _told(self, meter: Meter, now: float) -> Report:
        if meter is not self._global:
            return meter.report(now)
        pending, self._pending = self._pending, _Pending()
        return meter.report(now, admitted=pending.admitted, rejected=pending.rejected, failed_open=pending.failed_open)

    def _keep(self, reports: Iterable[Report]) -> None:
        """Tell the counters again: the store may not have heard them."""
        with self._lock:
            for report in reports:
                self._pending.admitted += report.admitted
                self._pending.rejected += report.rejected
                self._pending.failed_open += report.failed_open

    def _meter(self, limit: Limit) -> Meter:
        meter = self._meters.get(limit)
        if meter is None:
            if len(self._meters) >= METERS_KEPT:
                self._drop_idle()
            meter = self._meters[limit] = Meter(limit)
        return meter

    def _drop_idle(self) -> None:
        now = time.monotonic()
        self._meters = {
            limit: meter
            for limit, meter in self._meters.items()
            if meter is self._global or meter.until > now or meter.refused_until > now or meter.forced
        }

    def _refuse_deep(self, backlog: Backlog, queues: Iterable[str], tasks: int) -> None:
        found = [deep for queue in queues if (deep := backlog.too_deep(queue))]
        if found:
            with self._lock:
                self._pending.rejected += tasks
            raise too_deep(max(found, key=lambda deep: deep.wait))

    # -- what is said -------------------------------------------------------------------------------------------

    def _fail_open(self, counted: Counter[Limit], tasks: int, error: Exception) -> None:
        now = time.monotonic()
        with self._lock:
            self._pending.failed_open += tasks
            for limit, count in counted.items():
                self._meter(limit).force(count, now)
        if now - self._warned < WARN_EVERY:
            return
        self._warned = now
        logger.warning(
            "Admission control check failed (%s: %s) — failing open, task will proceed. Investigate if this recurs:"
            " sustained failure means rate limiting is inactive.",
            type(error).__name__,
            " ".join(str(error).split()),
        )

    def tell_the_rest(self) -> None:
        """Tell the counters that no request has carried yet: the process ends, and its refusals shall be seen."""
        end = time.monotonic() + LAST_PATIENCE
        if self._pending == _Pending() or not self._leasing.acquire(timeout=LAST_PATIENCE):
            return
        try:
            with self._lock:
                told = self._told(self._global, time.monotonic())
            self._line.run([self._admissions().request(self._limits.everything, 0, 0, told)], end)
        except Exception:
            logger.debug("What admission decided last could not be told.", exc_info=True)
        finally:
            self._leasing.release()

    def forget(self) -> None:
        """Hold no permits any more: they were of another time."""
        self._begin()

    def close(self) -> None:
        """Close the connection; a later push opens another."""
        if self._backlog is not None:
            self._backlog.close()
        if "_line" in self.__dict__:
            self._line.close()


def _last_to_open(needs: Needs) -> Meter | None:
    return max((meter for meter, _ in needs), key=lambda meter: meter.opens_at, default=None)


def admission_of(broker: Broker) -> Admission | None:
    """Return the admission of a broker that Relier is installed on."""
    return broker.__dict__.get("relier_admission")


_existing: weakref.WeakSet[Admission] = weakref.WeakSet()


def _in_child() -> None:
    for admission in list(_existing):
        admission._begin()


def _at_exit() -> None:
    for admission in list(_existing):
        admission.tell_the_rest()


os.register_at_fork(after_in_child=_in_child)
atexit.register(_at_exit)
