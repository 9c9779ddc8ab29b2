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

Ready = tuple[Due, Message[Any]]

#: Longest grace (s) for a published task to be claimed; the first is RELIER_RESURRECTION_CLAIM_GRACE_PERIOD.
LONGEST_GRACE = 1800.0
#: Most copies in one piece: a moment's work, so that whoever publishes can look around in between.
PIECE = 250
#: Copies that wait in a lane while orphans still go there, but not what merely became due: orphans shall not stand
#: behind thousands. Enough to keep workers busy until the next sweep.
FED = 2500


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
        self._share = 0

    def publish(self, shards: Sequence[int], consumed: Set[str]) -> bool:
        """Publish one piece of what is due in `shards`, for the queues that somebody consumes; True: there is more."""
        if not shards:
            return False
        limit = min(PIECE, self.settings.resurrection_batch_size)
        share = max(self._share, -(-limit // len(shards)))
        total, due = self.store.tasks.due(shards, share)
        batch = sorted(due, key=lambda record: not record.crashes)[:limit]  # Orphans first, from every shard.
        more = total > len(batch)
        self._share = 4 * share if more and 2 * len(batch) < limit else 0  # A few shards have it all: ask for more.
        return bool(batch) and self._publish(batch, consumed) and more

    def _publish(self, batch: list[Due], consumed: Set[str]) -> bool:
        """Publish copies, then mark their records (a crash in between publishes them again). False: nothing moved."""
        ready: list[Ready] = []
        marks: list[tuple[Due, str]] = []
        for due in batch:
            if due.queue not in consumed:
                marks.append((due, "no consumer"))
            elif (message := self._copy(due)) is not None:
                ready.append((due, message))
        ready = self._let_through(ready)
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

    def _let_through(self, ready: list[Ready]) -> list[Ready]:
        """Return those for which the lanes have room."""
        depth = self.lanes.depth({due.queue for due, _ in ready})
        if depth > self.settings.resurrection_max_queue_depth:
            logger.warning("Resurrection scan deferred: recovery queue backlog too deep")
            return []
        return [(due, message) for due, message in ready if due.crashes or depth <= FED]

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
