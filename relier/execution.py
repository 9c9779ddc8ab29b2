"""One run of a task, from the claim to the close, in the thread that received its message (R1)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from dramatiq.middleware import Interrupt, SkipMessage

from relier import failpoints, interrupts
from relier.claiming import Delivery
from relier.closing import Closing
from relier.endurance import free_memory
from relier.forks import end_forked_child
from relier.hooks import decode_failure, decode_result, replayed_failure
from relier.results import prepared_result
from relier.runner import CoroutineRun, RunCancelled, coroutine_function
from relier.runs import Phase, Run, enter, leave
from relier.schema import Arguments, migrations
from relier.sending import payload_version
from relier.store import HOOKS_ONLY, Claim
from relier.timeouts import Limits

logger = logging.getLogger(__name__)

_NOT_RETURNED: Any = object()


class Execution(Closing):
    """One attempt to run the copy of a task that this thread holds."""

    def __init__(self, delivery: Delivery, fn: Callable[..., Any]) -> None:
        super().__init__(delivery)
        self.fn = fn
        self._coroutine: CoroutineRun | None = None
        self._has_begun = False
        #: What the user code returned: from then on an interrupt comes too late.
        self._result: Any = _NOT_RETURNED
        #: What it raised.
        self._error: BaseException | None = None

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Claim, run and close; returns the actor's result or raises what Dramatiq's hooks shall see."""
        failpoints.hit("fetched")
        try:
            return self._run(args, kwargs)
        finally:
            if not self._deferred:
                self.process.quarters.leave()
            if self._coroutine is not None and self._coroutine.is_left_behind:
                self._coroutine.leave_behind()

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run, claim = self._claim_or_reject()
        if claim.verdict in HOOKS_ONLY:
            return self._replay(run, claim)
        failpoints.hit("claimed")
        while True:
            try:
                self._advance(run, args, kwargs)
                break
            except Interrupt as interrupt:  # Each step may be repeated, but for the user code.
                if self._result is _NOT_RETURNED and self._error is None:
                    self._error = interrupt
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # or the traceback and this frame hold each other
        return self._result

    def _advance(self, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Run the user code, once, and record how it ended; raises `SkippedByStore` when the run was lost."""
        if not self._has_begun:
            self._has_begun = True
            try:
                if self._interrupt is not None:
                    raise self._interrupt
                self._call(run, *self._migrated(run, args, kwargs))
            except BaseException as error:
                if self._result is _NOT_RETURNED:
                    self._error = error
        interrupts.shut(run)
        leave()  # An interrupt may have kept `_call` from it.
        if self._error is None:
            self._complete(run)
        if isinstance(self._error, SkipMessage):
            self._discard(run, "skipped")
        elif self._error is not None:
            self._failed(run, self._error)

    def _complete(self, run: Run) -> None:
        """Commit what the user code returned, unless that cannot be passed on as it should."""
        try:
            returned = prepared_result(self.broker, self.message, self._result, self.process.settings, run.task_id)
        except Exception as error:
            self._error = error
        else:
            failpoints.hit("done")
            self._commit(run, returned)

    def fail_unclaimed(self, error: BaseException) -> None:
        """Record a failure of a foreign before-hook: the actor never ran, and the task shall be tried again."""
        try:
            run, claim = self._claim_or_reject()
        finally:
            self.process.quarters.leave()
        if claim.verdict not in HOOKS_ONLY:
            try:
                self._failed(run, error)
            except Exception:
                logger.debug("A before-hook failed.", exc_info=True)

    def _replay(self, run: Run, claim: Claim) -> Any:
        """Return or raise the stored end of the task, so that only its hooks run (R7)."""
        run.phase, run.hooks_pending, run.settles = Phase.CLOSED, True, True
        run.trace_end("replayed")
        if claim.outcome == "dead":
            run.final_failure = True
            failure = decode_failure(claim.result)
            run.exhausted, run.failure_told = bool(failure.get("exhausted")), bool(failure.get("told"))
            run.attempt = int(failure.get("retries", run.attempt))  # The record counts the last failure as well.
            raise replayed_failure(claim.result)
        return decode_result(claim.result)

    # -- running ------------------------------------------------------------------------------------------------

    def _migrated(self, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Return the arguments as this code takes them. Raises `SchemaMigrationError`."""
        expected = payload_version(self.broker, self.message.actor_name)
        if run.stamp.payload_version >= expected:
            return args, kwargs
        run.arguments = migrations.apply(self.actor.actor_name, args, kwargs, run.stamp.payload_version, expected)
        return run.arguments

    def _call(self, run: Run, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        failpoints.hit("running")
        if run.phase is Phase.LOST:
            raise RunCancelled("the run was lost before its code began")
        original = coroutine_function(self.fn)
        enter(run)
        try:
            if original is None:
                interrupts.admit(run)
                if run.stops:  # Asked a moment before.
                    raise RunCancelled("the run was cancelled before its code began")
                self._result = self.fn(*args, **kwargs)
                return
            self._fetch_checkpoint(run)
            limits = Limits.of(self.actor.options, self.message.options)
            start = partial(self._await, original, args, kwargs)
            self._coroutine = coroutine = CoroutineRun(start, self.process.loops, limits, run)
            run.cancel = coroutine.cancel
            if run.stops:  # Asked a moment before.
                coroutine.cancel()
            self._result = coroutine.wait()
        except MemoryError as error:
            free_memory(error)
            raise
        finally:
            end_forked_child(self.process.pid)
            run.cancel = None
            leave()

    @staticmethod
    def _fetch_checkpoint(run: Run) -> None:
        """Have what an earlier run left here before the event loop needs it, where reading it would block others."""
        try:
            if run.checkpoint is not None:
                run.checkpoint.fetch()
        except OSError:  # Whoever reads it gets the error.
            logger.debug("A checkpoint cannot be fetched now.", exc_info=True)

    async def _await(self, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return await fn(*args, **kwargs)
        finally:
            end_forked_child(self.process.pid)
