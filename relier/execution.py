"""One run of a task, from the claim to the close, in the thread that received its message (R1)."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from dramatiq import Broker
from dramatiq.actor import Actor
from dramatiq.middleware import Interrupt, Shutdown, SkipMessage

from relier import failpoints
from relier.brokers.lanes import give_back
from relier.checkpoints import Checkpoint
from relier.declining import declined, is_newer
from relier.endurance import free_memory
from relier.envelope import stamp_of
from relier.errors import RunUnknownError
from relier.failures import RetryPolicy, decide
from relier.followups import send_failure_callback
from relier.forks import end_forked_child
from relier.hooks import (
    decode_failure,
    decode_result,
    encode_failure,
    has_failure_hooks,
    replayed_failure,
    text_of,
)
from relier.process import WorkerProcess
from relier.results import Returned, kept_for, prepared_result
from relier.runner import CoroutineRun, LoopBlocked, RunCancelled, coroutine_function
from relier.runs import Phase, Run, current
from relier.schema import Arguments, migrations
from relier.sending import payload_version, sending_of
from relier.store import HOOKS_ONLY, RUNS, Claim, Commit, Failure, Settled, Suspicion, Verdict
from relier.store.durability import LONG_SINCE
from relier.timeouts import Limits

logger = logging.getLogger(__name__)

_NOT_RETURNED: Any = object()


@dataclass(slots=True)
class Delivery:
    """The message that this worker thread is about to run, between the before-hook and the actor."""

    message: Any
    process: WorkerProcess


class SkippedByStore(SkipMessage):
    """The copy is acknowledged without running: the store has the task, or the task has ended."""


class Execution:
    """One attempt to run the copy of a task that this thread holds."""

    def __init__(self, delivery: Delivery, fn: Callable[..., Any]) -> None:
        self.message = delivery.message
        self.process = delivery.process
        self.tasks = delivery.process.store.tasks
        self.broker: Broker = delivery.process.broker
        self.fn = fn
        #: An interrupt that came during the claim; it was meant for the user code.
        self._interrupt: Interrupt | None = None
        #: Whether the task may run now if it is a suspect.
        self._slot_free = False
        self._coroutine: CoroutineRun | None = None
        #: Whether the commit was put aside: the thread leaves its quarters with that.
        self._deferred = False
        self._has_begun = False
        #: What the user code returned: from then on an interrupt comes too late.
        self._result: Any = _NOT_RETURNED
        #: What it raised.
        self._error: BaseException | None = None
        #: What the store answered when the run was closed.
        self._answer: Any = None

    @property
    def actor(self) -> Actor[..., Any]:
        return self.broker.get_actor(self.message.actor_name)

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

    # -- claiming -----------------------------------------------------------------------------------------------

    def _claim_or_reject(self) -> tuple[Run, Claim]:
        """Claim; reject the copy on an error that nobody foresaw: without custody it must not be acknowledged."""
        try:
            return self._claim()
        except SkipMessage:
            raise
        except BaseException:
            for run in self.process.runs.find(stamp_of(self.message).task_id):
                if run.message is self.message:
                    self.process.runs.remove(run)
            self.message.fail()
            raise

    def _claim(self) -> tuple[Run, Claim]:
        run = None
        while True:
            try:
                if run is None:
                    suspicion = stamp_of(self.message).suspicion
                    self._slot_free = self.process.quarters.enter(suspicion, self.process.deferred.flush)
                    run = self._new_run()
                self._leave_to_newer_code(run)
                claim = self._ask(run)
                if claim.verdict is not Verdict.FENCED:
                    return self._follow(run, claim), claim
                self.process.runs.remove(run)
                self.process.refence(run.worker_id)
                run = None
            except Interrupt as error:  # Ask again with the same nonce: the store may have granted the run.
                self._interrupt = error

    def _leave_to_newer_code(self, run: Run) -> None:
        """Give away a task whose payload is newer than this worker's code, before anything of it is counted."""
        if not is_newer(self.broker, self.message):
            return
        process = self.process
        if process.patiently(lambda: declined(process.store, self.broker, self.message, process.settings)):
            process.hand_custody(run)
        else:
            give_back(self.message)
        self._skip("newer than this code")

    def _follow(self, run: Run, claim: Claim) -> Run:
        if claim.verdict in RUNS or claim.verdict in HOOKS_ONLY:
            return self._own(run, claim)
        self.process.runs.remove(run)
        if claim.age < LONG_SINCE:
            self.process.hand_custody(run)
        return self._skip(claim.verdict)

    def _drop_if_not_ours(self) -> None:
        """Drop a copy whose delivery is void (R5): it goes back to the queue, or went back long ago."""
        may_start = getattr(self.message, "may_start", None)
        if may_start is not None and not may_start():
            self._skip("void")

    def _skip(self, why: str) -> NoReturn:
        self.message.options["store_results"] = False
        raise SkippedByStore(f"The store says: {why}.")

    def _new_run(self) -> Run:
        if self.process.state:  # Only before the first claim: one that was sent may still arrive (R5).
            give_back(self.message)
            self._skip("this worker is being drained")
        stamp = stamp_of(self.message)
        sending = sending_of(self.broker, self.message, stamp, self.process.settings)
        run = Run(self.message, stamp, sending, self.process.identity, self.process.generation)
        # Only now: whoever is declared dead in between still has the old identity, and is refused.
        self._drop_if_not_ours()
        return run

    def _ask(self, run: Run) -> Claim:
        runs = self.process.runs
        runs.add(run)
        settled = runs.unsettled(run.stamp.shard, limit=20)
        try:
            take_along = self.process.deferred.take_along
            claim = self.process.patiently(lambda: take_along(partial(self._send_claim, run, settled)))
        except SkipMessage:  # The copy is void. If an earlier try was granted, a beat puts the task back.
            runs.remove(run)
            raise
        runs.sent(settled)
        return claim

    def _send_claim(self, run: Run, settled: list[Settled], commit: Commit | None) -> Claim:
        slot_free = self._slot_free and run.stamp.suspicion is not Suspicion.NONE
        self._drop_if_not_ours()  # At every try: while one waited, the server may have been replaced.
        return self.tasks.claim(
            run.worker_id,
            run.sending,
            run.nonce,
            run.stamp.fence,
            slot_free=slot_free,
            settled=settled,
            commit=commit,
        )

    def _own(self, run: Run, claim: Claim) -> Run:
        run.fence, run.attempt, run.crashes = claim.fence, claim.attempt, claim.crashes
        run.phase = Phase.RUNNING
        run.checkpoint = Checkpoint(self.process, run, claim.checkpoint)
        self.message.relier_run = run
        if claim.crashes:
            logger.info("Running a task again after a crash.", extra={"task": run.task_id, "crashes": claim.crashes})
        return run

    def _replay(self, run: Run, claim: Claim) -> Any:
        """Return or raise the stored end of the task, so that only its hooks run (R7)."""
        run.phase, run.hooks_pending, run.settles = Phase.CLOSED, True, True
        if claim.outcome == "dead":
            run.final_failure = True
            run.exhausted = bool(decode_failure(claim.result).get("exhausted"))
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
        current.set(run)
        try:
            if original is None:
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
            current.set(None)

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

    # -- closing ------------------------------------------------------------------------------------------------

    def _close(self, run: Run, call: Callable[[], Any]) -> Any:
        """Close the grant with one call of the store, exactly once; raises `SkippedByStore` when the run was lost."""
        while True:
            try:
                answer = self._close_once(run, call)
                break
            except Interrupt:  # It was meant for the user code, which is over. The call may be repeated.
                continue
            except RunUnknownError:
                logger.warning("The store lost a run; its copy goes back.", extra={"task": run.task_id})
                run.phase = Phase.LOST
                give_back(self.message)
                self._give_up(run)
        if answer in (False, "refused"):
            logger.warning("A run came too late: its task has moved on.", extra={"task": run.task_id})
            self._give_up(run)
        return answer

    def _close_once(self, run: Run, call: Callable[[], Any]) -> Any:
        with run.lock:
            if self._answer is None and run.phase is not Phase.RUNNING:
                return False
            if self._answer is None:  # Else an interrupt came in between.
                self._answer = self.process.patiently(call)
            run.phase = Phase.LOST if self._answer in (False, "refused") else Phase.CLOSED
            return self._answer

    def _give_up(self, run: Run) -> NoReturn:
        """Leave a task that is no longer ours alone."""
        self.process.runs.remove(run)
        self.message.relier_run = None
        self._skip("the run was lost")

    def _commit(self, run: Run, returned: Returned) -> None:
        """Close the run; when nobody waits for its end, together with this thread's next claim."""
        if self._deferred:
            return
        hooks, protections = returned.hooks, returned.protections
        if run.sending.key is not None:
            protections["key"] = run.sending.key.terms()
        commit = self.tasks.prepare_commit(
            run.worker_id,
            run.sending,
            run.fence,
            hooks=hooks,
            result=returned.result,
            protections=json.dumps(protections) if protections else "",
        )
        if not hooks and self.process.deferred.may_wait(self.broker, run):
            self.process.deferred.put(run, commit)
            self._deferred = True
            return
        self._close(run, commit.conclude)
        run.hooks_pending, run.settles = hooks, True
        failpoints.hit("committed")

    def _failed(self, run: Run, error: BaseException) -> None:
        """Record the failure; raises `SkippedByStore` when the run was lost."""
        if isinstance(error, RunCancelled) or run.phase is Phase.LOST:
            self._cancelled(run)
        if isinstance(error, Shutdown | LoopBlocked):
            self.process.hand_over(run, "shutdown" if isinstance(error, Shutdown) else str(error))
            self._give_up(run)
        failure = self._judge(run, error)
        if failure.retry:
            send_failure_callback(self.broker, self.process, run, error)
        failpoints.hit("before-fail")
        run.final_failure = not failure.retry
        self._close(run, lambda: self.tasks.fail(run.worker_id, run.sending, run.fence, failure))
        failpoints.hit("failed")
        self.process.hand_custody(run)
        run.hooks_pending = run.final_failure and failure.hooks
        run.settles = run.final_failure

    def _cancelled(self, run: Run) -> NoReturn:
        """Discard what was cancelled on request; a run that was lost before needs nothing more."""
        self._discard(run, "cancelled")
        self._skip("cancelled")

    def _discard(self, run: Run, reason: str) -> None:
        remember = self._remembered_for(reason)
        self._close(run, lambda: self.tasks.discard(run.worker_id, run.sending, run.fence, reason, remember=remember))
        run.settles = True

    def _remembered_for(self, reason: str) -> float:
        """Return how long (s) somebody may ask for this end: whoever waits for a result, or cancelled the task."""
        settings = self.process.settings
        kept = kept_for(self.broker, self.message, settings) / 1000
        return kept or (settings.result_ttl if reason == "cancelled" else 0.0)

    def _judge(self, run: Run, error: BaseException) -> Failure:
        policy = RetryPolicy.of(self.message.options, self.actor.options)
        decision = decide(error, run.attempt, policy)
        run.exhausted = decision.exhausted
        summary = f"{type(error).__name__}: {text_of(error)}"[:300]
        return Failure(
            retry=decision.retry,
            delay=decision.delay_seconds,
            counts=decision.counts_attempt,
            hooks=has_failure_hooks(self.broker, self.message),
            reason=decision.reason,
            encoded=encode_failure(error, exhausted=decision.exhausted, retries=run.attempt),
            summary=summary,
        )
