"""The first part of a run: its claim, in the thread that received the message, before any user code (R1)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from dramatiq import Broker
from dramatiq.actor import Actor
from dramatiq.middleware import Interrupt, SkipMessage

from relier.brokers.lanes import give_back
from relier.checkpoints import Checkpoint
from relier.declining import declined, is_newer
from relier.envelope import stamp_of
from relier.holding_back import held_back
from relier.process import WorkerProcess
from relier.runs import Phase, Run
from relier.sending import sending_of
from relier.store import HOOKS_ONLY, RUNS, Claim, Commit, Settled, Suspicion, Verdict
from relier.store.durability import LONG_SINCE
from relier.telling import tell_crashed

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Delivery:
    """The message that this worker thread is about to run, between the before-hook and the actor."""

    message: Any
    process: WorkerProcess


class SkippedByStore(SkipMessage):
    """The copy is acknowledged without running: the store has the task, or the task has ended."""


class Claiming:
    """Asks the store for the task of the copy that this thread holds."""

    def __init__(self, delivery: Delivery) -> None:
        self.message = delivery.message
        self.process = delivery.process
        self.tasks = delivery.process.store.tasks
        self.broker: Broker = delivery.process.broker
        #: An interrupt that came during the claim; it was meant for the user code.
        self._interrupt: Interrupt | None = None
        #: Whether the task may run now if it is a suspect.
        self._slot_free = False

    @property
    def actor(self) -> Actor[..., Any]:
        return self.broker.get_actor(self.message.actor_name)

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
        if claim.crashes:
            tell_crashed(run.task_id, run.actor_name, run.sending.queue, claim.crashes)
        return self._skip(claim.verdict)

    def _drop_if_not_ours(self) -> None:
        """Drop a copy whose delivery is void (R5): it goes back to the queue, or went back long ago."""
        may_start = getattr(self.message, "may_start", None)
        if may_start is not None and not may_start():
            self._skip("void")

    def _skip(self, why: str) -> NoReturn:
        self.message.options["store_results"] = False
        self.message.relier_skipped = why
        raise SkippedByStore(f"The store says: {why}.")

    def _new_run(self) -> Run:
        if self.process.state:  # Only before the first claim: one that was sent may still arrive (R5).
            give_back(self.message)
            self._skip("this worker is being drained")
        stamp = stamp_of(self.message)
        sending = sending_of(self.broker, self.message, stamp, self.process.settings)
        run = Run(self.message, stamp, sending, self.process.identity, self.process.generation)
        if self.process.tracing is not None:
            self.process.tracing.begin(run)
        # Only now: whoever is declared dead in between still has the old identity, and is refused.
        self._drop_if_not_ours()
        return run

    def _ask(self, run: Run) -> Claim:
        runs = self.process.runs
        runs.add(run)
        settled = runs.unsettled(run.stamp.shard, limit=20)
        try:
            claim = self.process.patiently(partial(self._try, run, settled))
        except SkipMessage:  # The copy is void. If an earlier try was granted, a beat puts the task back.
            runs.remove(run)
            raise
        runs.sent(settled)
        return claim

    def _try(self, run: Run, settled: list[Settled]) -> Claim:
        if held := held_back(self.process, run):  # At every try: what was paused while one waited must not begin.
            self._skip(held)
        return self.process.deferred.take_along(partial(self._send_claim, run, settled))

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
        if run.trace is not None:
            run.trace.granted(run, claim)
        if claim.crashes:
            logger.info("Running a task again after a crash.", extra={"task": run.task_id, "crashes": claim.crashes})
        return run
