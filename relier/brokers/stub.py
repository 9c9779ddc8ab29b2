"""Dramatiq's `StubBroker`, for the unit tests of an application."""

from __future__ import annotations

import atexit
import os
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import redis
from dramatiq.broker import Consumer, MessageProxy
from dramatiq.common import dq_name
from dramatiq.errors import QueueJoinTimeout

from relier.brokers.generic import Adapter, Weakness
from relier.brokers.guard import GuardedConsumer
from relier.brokers.place import Place
from relier.errors import RelierError
from relier.settings import Settings
from relier.store import Store
from relier.store.survey import Survey

if TYPE_CHECKING:
    from relier.installation import Installation

#: Pause (s) between two looks at tasks that wait in the store.
LOOK_AGAIN = 0.02


class StubAdapter(Adapter):
    """Makes unit tests behave as with Dramatiq alone.

    Each broker has a namespace of its own in the store, which ends with the process: tests that run at the same time,
    or that were killed, leave each other alone, and no test reaches the tasks of an application. `join` also waits for
    retries, and raises the error of a task that failed for good; `flush_all` also makes the store forget every task.
    """

    def settings(self, settings: Settings) -> Settings:
        own = f"{settings.namespace[:32]}.stub-{os.getpid()}-{secrets.token_hex(4)}"
        return settings.model_copy(update={"namespace": own})

    def protect(self, installation: Installation) -> None:
        super().protect(installation)
        join, flush_all = self.broker.join, self.broker.flush_all

        def joining(queue_name: str, *, timeout: int | None = None, fail_fast: bool | None = None) -> None:
            end = None if timeout is None else time.monotonic() + timeout / 1000
            while True:
                join(queue_name, timeout=_left(end, queue_name), fail_fast=fail_fast)
                if not _waits(installation.store, queue_name):
                    return
                time.sleep(LOOK_AGAIN)

        def flushing() -> None:
            flush_all()
            forget_tasks(installation.store)

        self.broker.join, self.broker.flush_all = joining, flushing
        atexit.register(_forget_all, installation, os.getpid())

    def guarded(self, consumer: Consumer, queue_name: str, installation: Installation) -> Consumer:
        return _StubConsumer(consumer, queue_name, self, installation)

    def stop_taking(self) -> bool:
        """What is left belongs to the test, not to another worker."""
        return False

    def depth(self, queue: str) -> int | None:
        names = (queue, dq_name(queue))
        return sum(int(self.broker.queues[name].qsize()) for name in names if name in self.broker.queues)

    def shares_redis(self, client: redis.Redis) -> bool:
        """Messages do not outlive the process, so there is no custody to wait for."""
        return True

    def place(self) -> Place:
        return Place("stub", f"process {os.getpid()}")

    def weaknesses(self) -> list[Weakness]:
        return [STUB]


STUB = Weakness("accepted", "StubBroker is for unit tests: its messages end with the process.", "Use another broker.")


class _StubConsumer(GuardedConsumer):
    """Also shows the tasks that failed for good to `StubBroker.join`, which raises their errors."""

    has_peers = False

    def ack(self, message: MessageProxy) -> None:
        run = message.__dict__.get("relier_run")
        if run is not None and run.final_failure and not message.__dict__.get("give_back"):
            self.inner.nack(message)
        else:
            super().ack(message)

    def nack(self, message: MessageProxy) -> None:
        self._keep(message)
        self.inner.nack(message)


def _left(end: float | None, queue_name: str) -> int | None:
    """Return the milliseconds until `end`. Raises `QueueJoinTimeout` when there are none."""
    if end is None:
        return None
    left = int((end - time.monotonic()) * 1000)
    if left <= 0:
        raise QueueJoinTimeout(queue_name)  # type: ignore[no-untyped-call]
    return left


def _waits(store: Store, queue: str) -> bool:
    """Whether a task of the queue waits in the store, as for a retry, or runs."""
    return any(summary.queue == queue and not summary.ended for summary in Survey(store).all())


def forget_tasks(store: Store) -> None:
    """Forget every task of a namespace, counters and dead letters included. Its workers stay known."""
    workers = ["", *store.fleet.workers()]
    store.runner.command("UNLINK", *dict.fromkeys(key for worker in workers for key in store.keys.of_tasks(worker)))


def _forget_all(installation: Installation, pid: int) -> None:
    """Leave nothing in a store that others use as well."""
    if "store" not in installation.__dict__ or os.getpid() != pid:
        return
    store = installation.store
    # The embedded server may have ended before us, and its folder may be gone.
    with suppress(redis.RedisError, OSError, RelierError):
        forget_tasks(store)
        store.statistics.forget_periods()
        store.runner.command("UNLINK", *store.keys.fleet)
