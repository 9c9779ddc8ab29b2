"""Cancels tasks on request: what waits never runs, what runs is asked to stop where that is possible."""

from __future__ import annotations

from typing import Literal, cast

from relier import failpoints
from relier.store import Store

#: What a request to cancel a task came to:
#: `cancelled`: it waited; it ends as `discarded`, with the reason `cancelled`, and never runs again.
#: `marked`: nothing is known of it. If it still waits in the broker it will not run; it may have run before.
#: `asked`: it runs, and its worker was told to stop it. Whatever becomes of that run, it is the last one.
#: `running`: the same, but its worker could not be told now. It hears of it within about ten seconds of being back.
#: `ended`: it had ended before.
Cancellation = Literal["cancelled", "marked", "asked", "running", "ended"]


def cancel_task(
    store: Store,
    task_id: str,
    who: str,
    shard: int | None,
    *,
    unclaimed_before: int = 0,
    dead_letters: bool = False,
) -> Cancellation:
    """Cancel a task; may be repeated.

    Parameters:
      who: asks, for the history.
      shard: where the task is; None: not known.
      unclaimed_before: see `Tasks.hold`.
      dead_letters: whether a dead letter is discarded too; else it has ended.
    """
    if shard is None:
        shard = _whereabouts(store, task_id)
    outcome, owner, _ = store.tasks.hold(task_id, "cancel", who, shard, unclaimed_before, dead_letters=dead_letters)
    if outcome != "running":
        return cast("Cancellation", outcome if outcome in ("cancelled", "marked") else "ended")
    failpoints.hit("cancel-noted")
    return "asked" if store.fleet.tell(owner, {"type": "cancel", "task": task_id}) else "running"


def _whereabouts(store: Store, task_id: str) -> int:
    """Return the shard in which a task is to be cancelled.

    One that nobody knows may still come to any shard, if it has an idempotency key: then it finds itself cancelled
    there.
    """
    known = store.known(task_id)
    if known.state and not known.is_mark:
        return known.shard
    elsewhere = store.tasks.mark_elsewhere(task_id)
    return known.shard if elsewhere is None else elsewhere
