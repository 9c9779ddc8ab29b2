"""What a worker does with a copy whose task is held: it leaves it to the broker or to the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dramatiq.common import q_name

from relier.brokers.lanes import give_back
from relier.store.holds import PAUSED

if TYPE_CHECKING:
    from relier.process import WorkerProcess
    from relier.runs import Run


def held_back(process: WorkerProcess, run: Run) -> str:
    """Return '' for a task that may be claimed. Else see to its copy, and return why it waits.

    A copy goes back to a queue whose consumers are closed; any other one would come again at once, so the store takes
    it. When an earlier try of its claim was granted, a beat puts the task back. Raises what the store raises.
    """
    holds = process.gate.known()
    if not holds:
        return ""
    message, sending = run.message, run.sending
    came_by = message.__dict__.get("relier_carried_by") or q_name(message.queue_name)
    closed = came_by in holds.queues
    why = PAUSED if closed else holds.why(sending.queue, sending.actor, (process.code,))
    if closed and process.adapter.returns:
        give_back(message)
    elif why:
        _entrust(process, run)
    return why


def _entrust(process: WorkerProcess, run: Run) -> None:
    if process.store.tasks.decline(run.worker_id, run.sending, run.stamp.fence):
        process.hand_custody(run)
    else:
        process.refence(run.worker_id)
        give_back(run.message)
