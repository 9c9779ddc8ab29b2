"""Says in the worker's log what became of a task that did not complete.

Nothing of its arguments, and not what its exception says: either may hold secrets.
"""

from __future__ import annotations

import logging

from relier.runs import Run
from relier.store import Failure

__all__ = ["tell_crashed", "tell_ended", "tell_failed"]

logger = logging.getLogger(__name__)


def tell_failed(run: Run, failure: Failure, kind: str, *, dead: bool) -> None:
    """Tell that a run failed, and whether its task is retried or is a dead letter.

    What does not count as a failure (a rate limit) is told at DEBUG: it may be said of every task every few seconds.
    """
    failures = run.attempt + failure.counts
    fields = {**_task(run), "reason": failure.reason, "kind": kind}
    if not dead:
        level = logging.INFO if failure.counts else logging.DEBUG
        fields |= {"attempt": failures, "delay": round(failure.delay, 1)}
        logger.log(level, "A task failed; it is retried.", extra=fields)
        return
    fields |= {"attempts": failures, "fingerprint": failure.fingerprint}
    if failure.retry:  # It was asked for, and the store had counted enough failures alike.
        fields["identical"] = failure.identical_limit
    logger.error("A task failed for good; it is a dead letter.", extra=fields)


def tell_ended(run: Run, error: BaseException) -> None:
    """Tell that a run did not complete whose task somebody had asked to end."""
    fields = {**_task(run), "reason": type(error).__name__}
    logger.info("A task did not complete, and was asked to end; it is discarded.", extra=fields)


def tell_crashed(task_id: str, actor: str, queue: str, crashes: int) -> None:
    """Tell that a task is a dead letter because too many of its workers died."""
    fields = {"task": task_id, "actor": actor, "queue": queue, "crashes": crashes}
    logger.error("A task's workers died too often; it is a dead letter.", extra=fields)


def _task(run: Run) -> dict[str, object]:
    return {"task": run.task_id, "actor": run.actor_name, "queue": run.sending.queue}
