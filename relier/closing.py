"""The last part of a run: commit, failure or discard, exactly once, and in the thread that claimed (R1)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, NoReturn

from dramatiq.middleware import Interrupt, Shutdown

from relier import failpoints
from relier.brokers.lanes import give_back
from relier.claiming import Claiming, Delivery
from relier.errors import RunUnknownError
from relier.failures import FailureKind, RetryPolicy, decide
from relier.fingerprints import fingerprint
from relier.followups import send_failure_callback
from relier.hooks import encode_failure, has_failure_hooks, text_of
from relier.objectives import late_from
from relier.parking import park_after, park_if_many
from relier.results import Returned, kept_for
from relier.runner import LoopBlocked
from relier.runs import Phase, Run
from relier.store import Failure
from relier.telling import tell_ended, tell_failed
from relier.timeouts import tell_limit

logger = logging.getLogger(__name__)


class Closing(Claiming):
    """Tells the store how a claimed run ended."""

    def __init__(self, delivery: Delivery) -> None:
        super().__init__(delivery)
        #: Whether the commit was put aside: the thread leaves its quarters with that.
        self._deferred = False
        #: What the store answered when the run was closed.
        self._answer: Any = None
        #: Whether the failure speaks against the actor's code.
        self._blames_code = False
        #: What kind of failure it is.
        self._kind = FailureKind.UNCLASSIFIED

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
        run.trace_end("lost")
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
        if park_after(self.actor.options, self.process.settings):
            protections["ok"] = self.process.code
        if late := late_from(self.broker, run):
            protections["late"] = late
        commit = self.tasks.prepare_commit(
            run.worker_id,
            run.sending,
            run.fence,
            hooks=hooks,
            result=returned.result,
            protections=json.dumps(protections) if protections else "",
        )
        if not hooks and self.process.deferred.may_wait(self.broker, run):
            if run.trace is not None:
                run.trace.code_ended()
            self.process.deferred.put(run, commit)
            self._deferred = True
            return
        self._close(run, commit.conclude)
        run.trace_end("completed")
        run.hooks_pending, run.settles = hooks, True
        failpoints.hit("committed")

    def _failed(self, run: Run, error: BaseException) -> None:
        """Record the failure; raises `SkippedByStore` when the run was lost."""
        if run.stops or run.phase is Phase.LOST:  # Whatever it raised then.
            self._cancelled(run, error)
        if isinstance(error, Shutdown | LoopBlocked):
            self.process.hand_over(run, "shutdown" if isinstance(error, Shutdown) else str(error))
            self._give_up(run)
        failure = self._judged(run, error)
        if failure.retry:
            send_failure_callback(self.broker, self.process, run, error)
        run.failure_told = failure.retry
        failpoints.hit("before-fail")
        verdict = self._close(run, lambda: self.tasks.fail(run.worker_id, run.sending, run.fence, failure))
        run.final_failure = verdict == "dead"  # Also when a retry was asked for: the store counts identical failures.
        failpoints.hit("failed")
        run.trace_end(verdict, error, reason=failure.reason, kind=str(self._kind))
        if verdict == "discarded":
            run.settles = True
            tell_ended(run, error)
            self._skip("cancelled")
        self.process.hand_custody(run)
        run.hooks_pending = run.final_failure and failure.hooks
        run.settles = run.final_failure
        tell_failed(run, failure, str(self._kind), dead=run.final_failure)
        if self._blames_code:
            park_if_many(self.process, self.actor.options, run, failure.fingerprint)

    def _cancelled(self, run: Run, error: BaseException) -> NoReturn:
        """Discard what was cancelled on request; a run that was lost before needs nothing more."""
        failpoints.hit("before-cancelled")
        self._discard(run, "cancelled")
        failpoints.hit("cancelled")
        tell_ended(run, error)
        self._skip("cancelled")

    def _discard(self, run: Run, reason: str) -> None:
        remember = self._remembered_for(reason)
        self._close(run, lambda: self.tasks.discard(run.worker_id, run.sending, run.fence, reason, remember=remember))
        run.trace_end("discarded", reason=reason)
        run.settles = True

    def _remembered_for(self, reason: str) -> float:
        """Return how long (s) somebody may ask for this end: whoever waits for a result, or cancelled the task."""
        settings = self.process.settings
        kept = kept_for(self.broker, self.message, settings) / 1000
        return kept or (settings.result_ttl if reason == "cancelled" else 0.0)

    def _judged(self, run: Run, error: BaseException) -> Failure:
        try:
            return self._judge(run, error)
        except Exception:  # Else it would be given back, and run without end.
            logger.exception("A failure could not be judged; its task is a dead letter.", extra={"task": run.task_id})
            name = type(error).__name__
            return Failure(False, 0.0, counts=True, hooks=False, reason=name, encoded=b"", summary=name)

    def _judge(self, run: Run, error: BaseException) -> Failure:
        tell_limit(error, self.broker, self.message)
        policy = RetryPolicy.of(self.message.options, self.actor.options)
        decision = decide(error, run.attempt, policy)
        self._blames_code, self._kind = decision.blames_code, decision.kind
        # When the store ends it although a retry is asked for, its retries are exhausted.
        run.exhausted = exhausted = decision.exhausted or decision.retry
        summary = f"{type(error).__name__}: {text_of(error)}"[:300]
        return Failure(
            retry=decision.retry,
            delay=decision.delay_seconds,
            counts=decision.counts_attempt,
            hooks=has_failure_hooks(self.broker, self.message),
            reason=decision.reason,
            encoded=encode_failure(
                error, kind=str(decision.kind), exhausted=exhausted, retries=run.attempt, told=decision.retry
            ),
            summary=summary,
            fingerprint=fingerprint(run.actor_name, error, str(getattr(self.actor.fn, "__module__", ""))),
            identical_limit=decision.identical_limit,
        )
