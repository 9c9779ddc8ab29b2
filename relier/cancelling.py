"""Cancels tasks on request: what waits never runs, what runs is asked to stop where that is possible."""

from __future__ import annotations

from typing import Literal, cast

import dramatiq.broker
from dramatiq import Broker

from relier.store import Store

#: What a request to cancel a task came to:
#: `cancelled`: it waited; it ends as `discarded`, with the reason `cancelled`, and never runs again.
#: `marked`: nothing is known of it. If it still waits in the broker it will not run; it may have run before.
#:   An idempotent task of which only the id is known runs all the same: its shard is that of its key.
#: `asked`: it runs, and its worker was asked to stop it; an async actor stops, a sync one does not.
#: `running`: it runs, and cannot be interrupted: its actor is sync, or its worker does not listen.
#: `ended`: it had ended before.
Cancellation = Literal["cancelled", "marked", "asked", "running", "ended"]


def cancel_task(
    store: Store,
    task_id: str,
    who: str,
    shard: int | None,
    *,
    unclaimed_before: int = 0,
    broker: Broker | None = None,
    dead_letters: bool = False,
) -> Cancellation:
    """Cancel a task; may be repeated.

    Parameters:
      who: asks, for the history.
      shard: where the task is; None: where its id says.
      unclaimed_before: see `Tasks.hold`.
      dead_letters: whether a dead letter is discarded too; else it has ended.
      broker: its actors tell whether a running task can be interrupted. Default: the global one.
    """
    outcome, owner, _ = store.tasks.hold(task_id, "cancel", who, shard, unclaimed_before, dead_letters=dead_letters)
    if outcome != "running":
        return cast("Cancellation", outcome if outcome in ("cancelled", "marked") else "ended")
    if _cannot_stop(broker or dramatiq.broker.global_broker, store.known(task_id, shard).actor):
        return "running"
    return "asked" if store.fleet.tell(owner, {"type": "cancel", "task": task_id}) else "running"


def _cannot_stop(broker: Broker | None, actor_name: str) -> bool:
    """Whether the actor is known here, and is a sync one."""
    from relier.lifecycle import is_async

    actor = broker.actors.get(actor_name) if broker is not None else None
    return actor is not None and not is_async(actor)
