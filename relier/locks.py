"""`idempotency_lock`: code that is to be executed once, whoever comes to it."""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from dramatiq import get_encoder

from relier.endurance import endless
from relier.errors import IdempotencyInFlightError, StaleFenceError, StoreUnavailableError
from relier.idempotency import digest
from relier.logging import get_logger
from relier.runs import current
from relier.settings import get_settings
from relier.store.connection import UNAVAILABLE
from relier.store.locks import Holder, Locks

__all__ = ["IdempotencyLock", "idempotency_lock"]

log = get_logger(__name__)

T = TypeVar("T")

#: How long (s) the store is waited for before the code runs, and after it.
ACQUIRE_PATIENCE, COMMIT_PATIENCE = 2.0, 30.0
#: How often a lock is renewed in one in-flight time.
RENEWALS = 4
#: Longest pause (s) between two tries.
STEP = 0.5


def idempotency_lock(key: Any, ttl: float | None = None) -> IdempotencyLock:
    """Guard code that is to be executed once within `ttl` seconds, with `with` or `async with`.

    Parameters:
      key: what makes two executions the same: text, or any plain data.
      ttl: seconds for which the result counts. Default: `RELIER_IDEMPOTENCY_DEFAULT_TTL` (3600).

    Entering raises `IdempotencyInFlightError` while somebody else executes it. In a task that is worth a retry.
    """
    return IdempotencyLock(key, ttl)


class IdempotencyLock:
    """One attempt to execute guarded code. Made by `idempotency_lock`; can be entered once.

    A clean exit remembers the result, an exception frees the lock. It is held as long as its process lives; after that
    it lapses within `RELIER_IDEMPOTENCY_INFLIGHT_TTL` (120 s), but the task's next run has it at once.
    """

    def __init__(self, key: Any, ttl: float | None = None) -> None:
        settings = get_settings()
        self.ttl = float(settings.idempotency_default_ttl if ttl is None else ttl)
        if not self.ttl > 0:
            raise ValueError(f"The ttl of an idempotency_lock is a number of seconds above 0, not {ttl!r}.")
        self.key = key
        self.in_flight = settings.idempotency_inflight_ttl
        self._limit = settings.max_result_bytes
        self._digest = digest("lock", key)
        self._holder = Holder("", "", 0)
        self._state = "new"
        self._pid = os.getpid()
        self._cached = b""
        self._result: bytes | None = None

    @property
    def already_executed(self) -> bool:
        """Whether somebody executed it before: then use `cached_result`, and do nothing."""
        return self._state == "completed"

    @property
    def cached_result(self) -> Any:
        """What that execution set as its result; None when this is the first one."""
        return get_encoder().decode(self._cached)["result"] if self._cached else None

    def set_result(self, value: Any) -> None:
        """Set what later attempts get. Takes effect at the end of the block.

        Raises `ValueError` for more than `RELIER_MAX_RESULT_BYTES`, `RuntimeError` where nothing is executed, and the
        encoder's error for what it does not take.
        """
        if self._state != "held":
            raise RuntimeError("set_result belongs into the block of an idempotency_lock that is not already_executed.")
        encoded = get_encoder().encode({"result": value})
        if len(encoded) > self._limit:
            raise ValueError(
                f"The result is {len(encoded)} bytes, more than RELIER_MAX_RESULT_BYTES ({self._limit}): keep the data"
                " elsewhere and set its name."
            )
        self._result = encoded

    # -- entering -----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if self._state != "new":
            raise RuntimeError("An idempotency_lock can be entered once; make another one.")
        self._holder = _holder()
        answer = _patiently(lambda: self._locks.acquire(self._digest, self._holder, self.in_flight), ACQUIRE_PATIENCE)
        if answer.verdict == "held":
            raise IdempotencyInFlightError(
                f"The idempotency key {self.key!r} is held by another execution; if that died, it lapses in"
                f" {answer.lapses_in:.0f} s."
            )
        if answer.verdict == "stale":
            raise StaleFenceError(f"A later run of this task holds the idempotency key {self.key!r}.")
        self._cached, self._state = answer.result, "completed" if answer.verdict == "completed" else "held"
        if self._state == "held":
            _keeper.keep(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._state != "held" or os.getpid() != self._pid:  # A forked child must not act for its parent.
            return
        self._state = "over"
        try:
            if kind is None:
                self._commit()
            else:
                self._release()
        finally:
            _keeper.drop(self)

    async def __aenter__(self) -> Self:
        entering = asyncio.create_task(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(entering)
        except asyncio.CancelledError:  # The thread goes on, and nobody would free what it gets.
            entering.add_done_callback(self._undo)
            raise

    def _undo(self, entering: asyncio.Task[Self]) -> None:
        if not entering.cancelled() and entering.exception() is None:
            _keeper.drop(self)  # It lapses, should the loop end before the thread.
            asyncio.get_running_loop().run_in_executor(None, self.__exit__, asyncio.CancelledError, None, None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Shielded: a cancellation must not leave it unknown what became of the lock.
        await asyncio.shield(asyncio.to_thread(self.__exit__, kind, error, traceback))

    # -- leaving ------------------------------------------------------------------------------------------------

    def _commit(self) -> None:
        result = self._result
        if result is None:
            log.warning("An idempotency_lock ended without set_result; None is remembered.", **self.named())
            result = get_encoder().encode({"result": None})
        if not _patiently(lambda: self._locks.commit(self._digest, self._holder, self.ttl, result), COMMIT_PATIENCE):
            raise StaleFenceError(
                f"The idempotency key {self.key!r} was lost to another execution before this one ended."
            )

    def _release(self) -> None:
        try:
            self._locks.release(self._digest, self._holder)
        except UNAVAILABLE:
            log.warning("An idempotency_lock could not be freed; it lapses.", **self.named())

    def renew(self) -> bool:
        """Keep the lock for another in-flight time; done while it is held. False: it is lost."""
        return self._locks.renew(self._digest, self._holder, self.in_flight)

    def named(self) -> dict[str, str]:
        """Return what a log may say of it: the task that holds it, and of the key a digest, since a key is data."""
        in_task = {"task": self._holder.owner} if self._holder.fence else {}
        return {"key": self._digest, **in_task}

    @property
    def _locks(self) -> Locks:
        from relier.installation import store_of

        return store_of().locks


def _holder() -> Holder:
    token, run = secrets.token_hex(8), current.get()
    return Holder(token, token, 0) if run is None else Holder(token, run.task_id, run.fence)


def _patiently(call: Callable[[], T], seconds: float) -> T:
    end, pause = time.monotonic() + seconds, 0.01
    while True:
        try:
            return call()
        except UNAVAILABLE as error:
            if time.monotonic() + pause > end:
                raise StoreUnavailableError(f"The store is away ({type(error).__name__}).") from error
        time.sleep(pause)
        pause = min(2 * pause, STEP)


class _Keeper:
    """Renews every lock that this process holds, on one thread, which starts with the first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        #: When (monotonic) each lock is to be renewed.
        self._held: dict[IdempotencyLock, float] = {}
        self._thread: threading.Thread | None = None

    def keep(self, lock: IdempotencyLock) -> None:
        with self._changed:
            first = min(self._held.values(), default=math.inf)
            self._held[lock] = time.monotonic() + lock.in_flight / RENEWALS
            if self._held[lock] < first:
                self._changed.notify()
            if self._thread is None:
                run = endless(self._run, threading.Event())
                self._thread = threading.Thread(target=run, name="relier-locks", daemon=True)
                self._thread.start()

    def drop(self, lock: IdempotencyLock) -> None:
        with self._changed:
            self._held.pop(lock, None)

    def _run(self) -> None:
        while True:
            for lock in self._due():
                self._renew(lock)

    def _due(self) -> list[IdempotencyLock]:
        """Wait until some locks are to be renewed; notes when they will be again."""
        with self._changed:
            while True:
                now = time.monotonic()
                due = [lock for lock, at in self._held.items() if at <= now]
                if due:
                    self._held.update({lock: now + lock.in_flight / RENEWALS for lock in due})
                    return due
                first = min(self._held.values(), default=None)
                self._changed.wait(None if first is None else first - now)

    def _renew(self, lock: IdempotencyLock) -> None:
        try:
            kept = lock.renew()
        except UNAVAILABLE:
            return
        if not kept and lock in self._held:
            log.warning("An idempotency_lock was lost while its code runs.", **lock.named())
            self.drop(lock)


_keeper = _Keeper()
#: A forked child keeps nothing for its parent.
os.register_at_fork(after_in_child=_keeper.__init__)  # type: ignore[misc]
