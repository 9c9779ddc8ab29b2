"""Publishing: what is due goes from the store to the broker.

The sweeper calls it; what the store holds is published again until it is claimed, so nothing here needs to be exact.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dramatiq import Message
from dramatiq.errors import ActorNotFound, DecodeError

from relier import failpoints
from relier.brokers.lanes import Lanes
from relier.envelope import republished, stamp_of
from relier.errors import PayloadIntegrityError, SchemaMigrationError, UnsignableError
from relier.hooks import encode_failure
from relier.integrity import Integrity
from relier.knowledge import FleetView, Knowledge
from relier.notices import message_of
from relier.routes import Route, Routes
from relier.sending import sending_of
from relier.settings import Settings
from relier.store import Due, Parking, Sending, Settled, Store
from relier.store.holds import NO_HOLDS
from relier.store.notices import is_notice
from relier.store.survey import NEWER_VERSION, UNKNOWN_ACTOR

if TYPE_CHECKING:
    from relier.tracing import Tracing

logger = logging.getLogger(__name__)

Ready = tuple[Due, Message[Any]]

#: Longest grace (s) for a published task to be claimed; the first is RELIER_RESURRECTION_CLAIM_GRACE_PERIOD.
LONGEST_GRACE = 1800.0
#: How long (s) a parked task stays unseen when nobody comes who can run it.
PARKED_FOR = 600.0
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
      tracing: makes spans of what is put back after a crash.
    """

    def __init__(self, store: Store, lanes: Lanes, settings: Settings, tracing: Tracing | None = None) -> None:
        self.store = store
        self.lanes = lanes
        self.settings = settings
        self._tracing = tracing
        self.routes = Routes(settings)
        self._integrity = Integrity.of(settings)
        self._share = 0
        #: The look at the fleet after which lots were last opened, and what it found.
        self._opened_at = -1
        self._opened_for = Knowledge(), NO_HOLDS

    def publish(self, shards: Sequence[int], fleet: FleetView) -> bool:
        """Publish one piece of what is due in `shards` and can be run by somebody; True: there is more."""
        if not shards:
            return False
        if fleet.looks != self._opened_at:
            self._open_lots(shards, fleet)
        limit = min(PIECE, self.settings.resurrection_batch_size)
        share = max(self._share, -(-limit // len(shards)))
        total, due = self.store.tasks.due(shards, share)
        batch = sorted(due, key=lambda record: not record.crashes)[:limit]  # Orphans first, from every shard.
        more = total > len(batch)
        self._share = 4 * share if more and 2 * len(batch) < limit else 0  # A few shards have it all: ask for more.
        return (not batch or self._publish(batch, fleet)) and more

    def _publish(self, batch: list[Due], fleet: FleetView) -> bool:
        """Publish copies, then mark their records (a crash in between publishes them again). False: nothing moved."""
        batch = [due for due in batch if due.actor or not self._reissue(due)]
        routed = self._route(batch, fleet)
        copies = [(due, self._copy(due, route.queue)) for due, route in routed if route.queue]
        ready = self._let_through([(due, message) for due, message in copies if message is not None])
        failpoints.hit("before-publish")
        began = time.time_ns()
        self.lanes.publish([message for _, message in ready])
        failpoints.hit("published")
        grace = self.settings.resurrection_claim_grace_period
        self.store.tasks.mark_published([due for due, _ in ready], grace, max(grace, LONGEST_GRACE))
        failpoints.hit("marked")
        for due, message in ready:
            _log_publication(due)
            if self._tracing is not None and due.crashes:
                self._tracing.resurrected(due, message, began)
        held = [(due, route.held) for due, route in routed if route.held]
        self._park(held)
        return bool(ready or held)

    def _let_through(self, ready: list[Ready]) -> list[Ready]:
        """Return those for which the lanes have room."""
        depth = self.lanes.depth({message.queue_name for _, message in ready})
        if depth > self.settings.resurrection_max_queue_depth:
            logger.warning("Resurrection scan deferred: recovery queue backlog too deep")
            return []
        return [(due, message) for due, message in ready if due.crashes or depth <= FED]

    # -- what nobody can run ------------------------------------------------------------------------------------

    def _route(self, batch: list[Due], fleet: FleetView) -> list[tuple[Due, Route]]:
        """Route each record; what nobody can run, and what is held, by a fresh look at the fleet."""
        routed = [(due, self.routes.of(due, fleet.knowledge, fleet.holds)) for due in batch]
        if any(route.held for _, route in routed):
            fleet.look()
            routed = [(due, self.routes.of(due, fleet.knowledge, fleet.holds)) for due in batch]
        return routed

    def _park(self, held: list[tuple[Due, str]]) -> None:
        if not held:
            return
        letters = self.store.tasks.park([(due, self._parking(due, reason)) for due, reason in held], PARKED_FOR)
        self.routes.warn_of([(due, reason) for due, reason in held if due.task_id not in letters])
        for due, reason in held:
            if due.task_id in letters:
                _log_letter(due, reason)

    def _parking(self, due: Due, reason: str) -> Parking:
        if reason == UNKNOWN_ACTOR:
            return Parking(reason, self.settings.unknown_actor_grace, _unknown(due.actor))
        if reason == NEWER_VERSION:
            return Parking(reason, self.settings.newer_version_grace, _too_new(due))
        return Parking(reason)

    def _open_lots(self, shards: Sequence[int], fleet: FleetView) -> None:
        """Let some of those out whom somebody can run now; after each look at the fleet, until the lots are empty."""
        seen = fleet.knowledge, fleet.holds
        news, left = seen != self._opened_for, 0
        for lot in self.store.tasks.lots(shards):
            if self.routes.lead_anywhere(lot, fleet.knowledge, news, fleet.holds):
                left += self.store.tasks.unpark(lot)
        if not left:
            self._opened_at, self._opened_for = fleet.looks, seen

    # -- copies -------------------------------------------------------------------------------------------------

    def _copy(self, due: Due, queue: str) -> Message[Any] | None:
        try:
            message = self._examined(due)
            if stamp_of(message).task_id != due.task_id:
                raise PayloadIntegrityError("Its record holds the message of another task.")
            return republished(message, due, queue)
        except (DecodeError, TypeError, PayloadIntegrityError, UnsignableError) as error:
            self._give_up(due, error)
            return None

    def _examined(self, due: Due) -> Message[Any]:
        """Return a record's message; here as everywhere nothing is signed that was not."""
        if is_notice(due.body):
            return message_of(due, self._integrity)
        message: Message[Any] = Message.decode(due.body)
        self._integrity.examine(message)
        return message

    def _reissue(self, due: Due) -> bool:
        """Let a released dead letter of no task begin as the task that it names, if its bytes are in order by now.

        The store takes that one as it takes a delay, and the letter's own record ends. A crash in between repeats it,
        and changes nothing: who is known is not begun again. True: the record is done with.
        """
        try:
            message = self._examined(due)
        except (DecodeError, TypeError, PayloadIntegrityError) as error:
            self._give_up(due, error)
            return True
        sending = sending_of(self.lanes.broker, message, stamp_of(message), self.settings)
        self.store.tasks.schedule(replace(sending, body=due.body), _delay_of(message), released=True)
        self.store.tasks.discard("", Sending(due.task_id, due.shard, due.queue, "", b""), 0, "reissued")
        return True

    def _give_up(self, due: Due, error: Exception) -> None:
        """End a record whose body cannot be published: a dead letter, or a task whose hooks went with a rollback."""
        logger.error("A record has no body that can be published.", extra={"task": due.task_id})
        sending = Sending(due.task_id, due.shard, due.queue, due.actor, due.body)
        if not self.store.tasks.dead_letter(sending, "PayloadIntegrityError", encode_failure(error)):
            self.store.tasks.settle([Settled(due.task_id, due.shard, due.fence, False)])


def _delay_of(message: Message[Any]) -> float:
    """Return for how many seconds a message is still to wait, by the `eta` of plain Dramatiq."""
    eta = message.options.get("eta")
    return max(0.0, eta / 1000 - time.time()) if isinstance(eta, int | float) else 0.0


def _unknown(actor: str) -> bytes:
    return encode_failure(ActorNotFound(f"No living worker has the actor {actor!r}."))  # type: ignore[no-untyped-call]


def _too_new(due: Due) -> bytes:
    text = f"No living worker knows version {due.payload_version} of the payload of {due.actor!r}."
    return encode_failure(SchemaMigrationError(text))


def _log_letter(due: Due, reason: str) -> None:
    extra = {"task": due.task_id, "actor": due.actor, "queue": due.queue}
    if reason == NEWER_VERSION:
        logger.error("No worker knew the version of a task in time; it is a dead letter.", extra=extra)
    else:
        logger.error("No worker had the actor of a task in time; it is a dead letter.", extra=extra)


def _log_publication(due: Due) -> None:
    extra = {"task": due.task_id, "actor": due.actor, "crashes": due.crashes}
    if due.published:
        logger.warning("Resurrected task never claimed - releasing back to scan", extra=extra)
    elif due.crashes:
        logger.info("Resurrected task successfully re-queued.", extra=extra)
