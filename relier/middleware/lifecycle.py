"""Turns Dramatiq's hooks into steps of a task's life."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, Message, Worker
from dramatiq.actor import Actor
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware

from relier import failpoints
from relier.envelope import stamp_of
from relier.execution import Execution
from relier.hooks import results_of, text_of
from relier.lifecycle import claim_before_running, deliver, run_of, take_delivery
from relier.objectives import OPTIONS as OBJECTIVES
from relier.on_dead import report_strangers
from relier.queues import is_internal
from relier.runs import Phase, Run
from relier.schema import report_unusable
from relier.sending import payload_version, sending_of
from relier.timeouts import LIMIT_OPTIONS

if TYPE_CHECKING:
    from relier.installation import Installation

logger = logging.getLogger(__name__)


class Lifecycle(Middleware):
    """Claims every message before its actor runs, and settles it after its hooks and its acknowledgement.

    Actor options, besides Dramatiq's own for retries (`max_retries`, `min_backoff`, `max_backoff` in milliseconds,
    `retry_when`, `throws`, `on_retry_exhausted`):

    Parameters:
      max_resurrections(int): How many crashes of its worker a task survives. Defaults to `RELIER_MAX_RESURRECTIONS`.
      on_crash(str): `retry` (default), or `dead`: the first crash makes a dead letter.
      on_dead: the actor, or its name, that gets the dead record of a task; see `relier.on_dead`.
      transient, deterministic: exception classes that are always, or never, worth a retry.
      park_after(int): So many tasks that fail alike park the actor. Defaults to `RELIER_PARK_AFTER` (0: never).
      schema_version(int): The version of the payload that this code writes and takes. Defaults to 1.
      store_results(bool): Whether what the actor returns is kept, for receipts. Defaults to False.
      result_ttl(int): For how many milliseconds. Defaults to `RELIER_RESULT_TTL`.
      slo_target(float), slo_latency(float): Objectives, see `relier.objectives`.
      soft_timeout, hard_timeout(float), on_soft_timeout: limits of async actors, in seconds; see `relier.timeouts`.
    """

    def __init__(self, installation: Installation) -> None:
        self.installation = installation

    @property
    def actor_options(self) -> set[str]:
        return {
            "max_retries",
            "min_backoff",
            "max_backoff",
            "retry_when",
            "throws",
            "on_retry_exhausted",
            "max_resurrections",
            "on_crash",
            "on_dead",
            "transient",
            "deterministic",
            "park_after",
            "schema_version",
            "store_results",
            "result_ttl",
            *LIMIT_OPTIONS,
            *OBJECTIVES,
        }

    def after_declare_actor(self, broker: Broker, actor: Actor[..., Any]) -> None:
        claim_before_running(actor)
        if self.installation.process is not None:
            self.installation.process.tell()

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        if self.installation.role == "worker":
            report_unusable({name: payload_version(broker, name) for name in broker.actors})
            report_strangers(broker)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        if self.installation.process is not None and not is_internal(message.queue_name):
            deliver(message, self.installation.process)

    def after_process_message(
        self, broker: Broker, message: MessageProxy, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        run = run_of(message)
        if run is None:
            self._fail_unclaimed(message, exception)
            return
        if run.final_failure and exception is not None:
            _store_failure(broker, message, exception)
        if (exception is not None) == run.final_failure:
            run.hooks_pending = False
        # Else an interrupt cut the hooks of a completed task short; its record stays pending and is replayed.
        failpoints.hit("hooks")

    def _fail_unclaimed(self, message: MessageProxy, exception: BaseException | None) -> None:
        """A before-hook of somebody else failed: without Dramatiq's `Retries` the task would be gone."""
        delivery = take_delivery(message.actor_name)
        if delivery is not None and exception is not None:
            Execution(delivery, _never).fail_unclaimed(exception)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        """Discard what somebody else skipped; the broker's own dead-letter queue stays empty."""
        delivery = take_delivery(message.actor_name)
        if delivery is None:
            return
        reason = "max_age" if message.failed else "skipped"
        message.failed = False
        process = delivery.process
        stamp = stamp_of(message)
        sending, seen = sending_of(broker, message, stamp, process.settings), stamp.fence
        try:
            process.patiently(lambda: process.store.tasks.discard(process.identity, sending, 0, reason, seen))
        except BaseException:
            message.fail()  # The store did not take note, so the copy must not be acknowledged.
            raise
        if reason == "max_age":
            _store_failure(broker, message, TimeoutError("The message is older than its max_age."))

    def before_ack(self, broker: Broker, message: MessageProxy) -> None:
        """Settle when our own broker knows that the copy is removed, which is later than `after_ack`."""
        run = run_of(message)
        if run is not None and _is_open(run) and self.installation.process is not None:
            self.installation.process.hand_over(run, "not closed")
            logger.error("A run was not closed; its task is given back.", extra={"task": run.task_id})
        if run is not None and hasattr(message, "on_removed"):
            message.__dict__["on_removed"] = partial(self._settle, run)

    def after_ack(self, broker: Broker, message: MessageProxy) -> None:
        run = run_of(message)
        if run is not None and not hasattr(message, "on_removed"):
            self._settle(run, confirmed=False)

    def _settle(self, run: Run, confirmed: bool) -> None:
        failpoints.hit("acknowledged")
        process = self.installation.process
        if process is None:
            return
        if run.settles and not run.final_failure and run.checkpoint is not None:
            run.checkpoint.forget()
        if run.settles and not run.hooks_pending:
            # A copy may have come back with a replaced server, or a repeated call may still arrive (R5).
            certain = confirmed and process.shares_redis and run.generation == process.generation
            process.runs.ended(run, certain)
        else:
            process.runs.remove(run)

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        failpoints.hit("before-enqueue")

    def after_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        failpoints.hit("enqueued")


def _is_open(run: Run) -> bool:
    """Whether a run was neither closed nor put aside to be closed."""
    return run.phase is Phase.RUNNING and getattr(run.message, "deferred", None) is None


def _never() -> None:
    raise AssertionError("a message whose before-hook failed must not run")


def _store_failure(broker: Broker, message: Any, error: BaseException) -> None:
    """Give `Results` the failure: the message is acknowledged, so its own hook for rejected ones does not run."""
    found = results_of(broker, message)
    if found is not None:
        results, ttl = found
        kept = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {text_of(error)}")
        results.backend.store_exception(message, kept, ttl)
