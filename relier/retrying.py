"""Lets a task run now, on a person's request: a dead letter again, what waits for its time at once."""

from __future__ import annotations

from relier.dlq import DeadLetters
from relier.store import Store

#: What became of a request to retry a task, in words for people.
TOLD = {
    "released": "released: it runs again, with fresh attempts and the crashes it had",
    "due": "due: it is published at once; what still cannot run waits again",
    "queued": "queued: it waits for a worker, which `rl worker status` and `rl queue list` explain",
    "waits for its key": "waits for another task that has its idempotency key; `rl tasks inspect` names it",
    "running": "running: it runs now",
    "ended": "ended: it has completed or was discarded; enqueue it again",
    "pending": "pending: the callbacks of its failure are not done yet, try again",
    "superseded": "superseded: another task has had its job key since",
    "newer": "newer: a newer version of Relier wrote its record",
    "unknown": "unknown: there is no record of it; it waits in the broker, or ended and was forgotten",
}
#: What counts as success.
RETRIED = ("released", "due")


def retry_task(store: Store, task_id: str, who: str) -> str:
    """Release a dead letter, or make a waiting task due at once; returns one of `TOLD`. May be repeated."""
    outcome = store.tasks.retry(task_id, who, store.known(task_id).shard)
    if outcome != "dead":
        return outcome
    released = DeadLetters(store, who).release(task_id)[task_id]
    return "ended" if released == "gone" else released
