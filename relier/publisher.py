"""Publishing: what is due goes from the store to the broker.

The sweeper calls it; what the store holds is published again until it is claimed, so nothing here needs to be exact.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from typing import Any

from dramatiq import Message
from dramatiq.errors import DecodeError

from relier import failpoints
from relier.brokers.lanes import Lanes
from relier.envelope import republished, stamp_of
from relier.hooks import encode_failure
from relier.settings import Settings
from relier.store import Due, Sending, Settled, Store

logger = logging.getLogger(__name__)

#: Longest grace (s) for a published task to be claimed; the first is RELIER_RESURRECTION_CLAIM_GRACE_PERIOD.
LONGEST_GRACE = 1800.0


class Publisher:
    """Publishes due records of the shards that it is given, a batch at a time.

    Parameters:
      store: where the records are.
      lanes: how the broker is reached.
      settings: batch size, grace.
    """

    def __init__(self, store: Store, lanes: Lanes, settings: Settings) -> None:
        self.store = store
        self.lanes = lanes
        self.settings = settings

    def publish(self, shards: Sequence[int], consumed: Set[str]) -> bool:
        """Publish one batch of what is due in `shards`, for the queues that somebody consumes; True: there is more."""
        if not shards:
            return False
        limit = self.settings.resurrection_batch_size
        total, due = self.store.tasks.due(shards, -(-limit // len(shards)))
        batch = due[:limit]
        return bool(batch) and self._publish(batch, consumed) and total > len(batch)

    def _publish(self, batch: list[Due], consumed: Set[str]) -> bool:
        """Publish copies, then mark their records (a crash in between publishes them again). False: nothing moved."""
        ready: list[tuple[Due, Message[Any]]] = []
        marks: list[tuple[Due, str]] = []
        for due in batch:
            if due.queue not in consumed:
                marks.append((due, "no consumer"))
            elif (message := self._copy(due)) is not None:
                ready.append((due, message))
        if ready and self.lanes.too_deep({due.queue for due, _ in ready}):
            logger.warning("Resurrection scan deferred: recovery queue backlog too deep")
            ready = []
        failpoints.hit("before-publish")
        self.lanes.publish([message for _, message in ready])
        failpoints.hit("published")
        marks += [(due, "") for due, _ in ready]
        grace = self.settings.resurrection_claim_grace_period
        self.store.tasks.mark_published(marks, grace, max(grace, LONGEST_GRACE))
        failpoints.hit("marked")
        for due, _ in ready:
            _log_publication(due)
        return bool(marks)

    def _copy(self, due: Due) -> Message[Any] | None:
        try:
            message: Message[Any] = Message.decode(due.body)
            return republished(message.copy(queue_name=due.queue), stamp_of(message), due.fence, due.suspicion)
        except (DecodeError, TypeError) as error:
            self._give_up(due, error)
            return None

    def _give_up(self, due: Due, error: Exception) -> None:
        """End a record whose body cannot be published: a dead letter, or a task whose hooks went with a rollback."""
        logger.error("A record has no body that can be published.", extra={"task": due.task_id})
        sending = Sending(due.task_id, due.shard, due.queue, due.actor, due.body)
        if not self.store.tasks.dead_letter(sending, "PayloadIntegrityError", encode_failure(error)):
            self.store.tasks.settle([Settled(due.task_id, due.shard, due.fence, False)])


def _log_publication(due: Due) -> None:
    extra = {"task": due.task_id, "actor": due.actor, "crashes": due.crashes}
    if due.published:
        logger.warning("Resurrected task never claimed - releasing back to scan", extra=extra)
    elif due.crashes:
        logger.info("Resurrected task successfully re-queued.", extra=extra)
