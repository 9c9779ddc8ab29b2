"""Any Dramatiq broker: what Relier asks of one that is only known by Dramatiq's base classes."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import redis
from dramatiq import Broker, Message
from dramatiq.broker import Consumer
from dramatiq.common import q_name
from dramatiq.errors import BrokerConnectionError, ConnectionClosed, QueueNotFound

from relier.brokers.guard import GuardedConsumer
from relier.brokers.peek import Head, heads_of
from relier.brokers.place import Place
from relier.envelope import keeping_stamps, stamp_of
from relier.integrity import finish, keeping_options
from relier.payloads import check_sealed
from relier.preflight import Finding
from relier.pushing import Pushes, each_unless_refused, wants_custody
from relier.queues import lane_of
from relier.sending import prepared, prepared_together
from relier.settings import Settings

if TYPE_CHECKING:
    from relier.installation import Installation

logger = logging.getLogger(__name__)

#: How many publications an adapter remembers, so that a second one takes another way.
PUBLICATIONS_KEPT = 20_000


#: Tells of message bodies which are to be removed: their tasks have ended, durably.
Judge: TypeAlias = Callable[[Sequence[bytes]], list[bool]]


@dataclass(frozen=True, slots=True)
class Weakness:
    """One promise that a broker keeps less well than Relier's own."""

    promise: str  #: its name in docs/brokers.md
    text: str
    fix: str = "Use Relier's own broker."


class Adapter:
    """How Relier reaches one broker. Subclasses know theirs better.

    Parameters:
      broker: a Dramatiq broker.
    """

    #: Whether a copy that is given back is in its queue again as if it had not been taken.
    returns = False
    #: Whether delays wait in the store. Else the broker's delay lanes also carry messages whose time is far away.
    delays_in_store = False

    def __init__(self, broker: Broker) -> None:
        self.broker: Any = broker
        #: Whether consumers take nothing: see `stop_taking`.
        self.idle = False
        #: Queues from which nothing is taken.
        self.closed: frozenset[str] = frozenset()
        self._published: OrderedDict[tuple[str, int], None] = OrderedDict()

    # -- installing ---------------------------------------------------------------------------------------------

    def settings(self, settings: Settings) -> Settings:
        """Return the settings under which Relier is installed on this broker."""
        return settings

    def protect(self, installation: Installation) -> None:
        """Stamp what is enqueued, and guard what is consumed.

        A hook would be too late for the stamp: some brokers hand it the caller's own message object.
        """
        enqueue, consume, emit_before = self.broker.enqueue, self.broker.consume, self.broker.emit_before
        limit = installation.settings.max_payload_bytes

        pushes = Pushes(self.broker, lambda: installation.store, installation.settings)

        def stamping(message: Message[Any], *, delay: int | None = None) -> Message[Any]:
            stamped = prepared(self.broker, message, delay)
            if wants_custody(stamped):
                with keeping_options(stamped):
                    return pushes.through(stamped, delay, enqueue)
            with keeping_options(stamped):
                return enqueue(stamped, delay=delay) or stamped

        def sealing(signal: str, *args: Any, **kwargs: Any) -> None:
            emit_before(signal, *args, **kwargs)
            if signal == "enqueue":  # Every middleware has had its say, and the broker is about to encode it.
                check_sealed(args[0], finish(installation.integrity, args[0]), limit)
                pushes.sealed(*args)

        def guarding(queue_name: str, *args: Any, **kwargs: Any) -> Consumer:
            return self.guarded(consume(queue_name, *args, **kwargs), queue_name, installation)

        self.broker.enqueue, self.broker.consume, self.broker.emit_before = stamping, guarding, sealing

    def guarded(self, consumer: Consumer, queue_name: str, installation: Installation) -> Consumer:
        """Return a consumer that keeps what this one would lose."""
        return GuardedConsumer(consumer, queue_name, self, installation)

    def begin_work(self) -> None:
        """Prepare a process that is about to consume."""

    # -- publishing ---------------------------------------------------------------------------------------------

    def enqueue_many(self, messages: Sequence[Message[Any]]) -> list[Message[Any]]:
        """Enqueue messages of a producer; returns them as they were enqueued."""
        ready = prepared_together(self.broker, messages)
        with keeping_stamps():
            return each_unless_refused(ready, lambda m: self.broker.enqueue(m, delay=m.options.get("delay")))

    def publish(self, messages: Iterable[Message[Any]]) -> None:
        """Publish copies that the store keeps.

        They go to their queues' delay lanes, without eta, where the broker has such lanes: every consumer of the queue
        takes them ahead of the backlog. A copy that nobody claimed goes to the queue itself: the lane's consumers may
        be full of messages whose time is far away.

        Raises `BrokerConnectionError` for whatever the broker raises: then the sweep leaves it to others for a while.
        """
        try:
            with keeping_stamps():
                for message in messages:
                    self._publish(message)
        except BrokerConnectionError:
            raise
        except Exception as error:
            logger.warning("The broker refuses what is put back.", extra={"error": f"{type(error).__name__}: {error}"})
            raise ConnectionClosed(error) from error  # type: ignore[no-untyped-call]

    def _publish(self, message: Message[Any]) -> None:
        lane = lane_of(message.queue_name)
        if lane != message.queue_name and self._has_lane(lane) and not self._published_before(message):
            try:
                self.broker.enqueue(message.copy(queue_name=lane))
                return
            except QueueNotFound:
                logger.debug("The broker does not take messages to its delay lane.", extra={"queue": lane})
        self.broker.enqueue(message)

    def _has_lane(self, lane: str) -> bool:
        """Whether the broker has this delay lane. A process that does not know the queue concludes from others."""
        lanes = self.broker.get_declared_delay_queues()
        return lane in lanes or (bool(lanes) and q_name(lane) not in self.broker.get_declared_queues())

    def _published_before(self, message: Message[Any]) -> bool:
        stamp = stamp_of(message)
        key = stamp.task_id, stamp.fence
        before = key in self._published
        self._published[key] = None
        if len(self._published) > PUBLICATIONS_KEPT:
            self._published.popitem(last=False)
        return before

    # -- consumed copies ----------------------------------------------------------------------------------------

    def put_back(self, consumer: Consumer, message: Any) -> None:
        """Put a copy back to its queue, and remove the one that was consumed. Raises what the broker raises."""
        options = message.__dict__.get("options_delivered", message.options)  # Running it may have changed them.
        copy: Message[Any] = Message(
            **{**message.asdict(), "queue_name": q_name(message.queue_name), "options": options}
        )
        with keeping_stamps():
            self.broker.enqueue(copy)
        consumer.ack(message)

    def return_unacked(self, told: dict[str, Any]) -> None:
        """Return a dead worker's unacknowledged messages to their queues, where the broker does not do so itself."""

    def known_broker_ids(self) -> set[str]:
        """Return every broker id that may hold unacknowledged messages."""
        return set()

    @property
    def broker_id(self) -> str | None:
        """Under which name this process holds messages, where that matters."""
        return None

    def renew_broker_id(self) -> None:
        """Hold messages under another name from now on: this worker was declared dead."""

    def withdraw(self) -> bool:
        """Return what was not started, and take nothing until `resume`. False: this broker cannot."""
        return False

    def stop_taking(self) -> bool:
        """Take nothing until `resume`; what was taken may still be acknowledged. False: this broker cannot."""
        self.idle = True
        return True

    def resume(self) -> None:
        """Consume again after `withdraw` or `stop_taking`."""
        self.idle = False

    def works_from(self, unstarted: Callable[[str], list[Any]]) -> None:
        """Note what takes the messages of a lane, in order, away from worker threads that have not begun them.

        Used for a queue that is closed, where that is safe; else the threads give them back when they get to them.
        """

    def close_queues(self, queues: frozenset[str]) -> None:
        """Take nothing from these queues and their delay lanes, and from all others as ever; running tasks go on."""
        self.closed = queues

    def is_closed(self, lane: str) -> bool:
        """Whether nothing is taken from a queue or delay lane."""
        return q_name(lane) in self.closed

    # -- what is known ------------------------------------------------------------------------------------------

    def depth(self, queue: str) -> int | None:
        """Return how many messages wait in a queue; None when the broker cannot tell."""
        return None

    def held(self, queue: str) -> int | None:
        """Return how many messages of a queue workers hold unacknowledged; None when the broker cannot tell."""
        return None

    def oldest(self, queue: str) -> float | None:
        """Return when the oldest message that waits in a queue was made, in seconds since the epoch on its producer's
        clock; None when there is none, or the broker cannot tell.
        """
        return None

    def heads(self, queues: Sequence[str]) -> dict[str, Head]:
        """Return depth and oldest of several queues, in fewer round trips where that can be."""
        return heads_of(self, queues)

    def queues(self) -> set[str]:
        """Return the queues that have messages, as far as the broker can tell without being asked for one by name."""
        return set()

    def has_queue(self, queue: str) -> bool:
        """Whether the broker is known to have a queue."""
        return queue in self.queues() or bool(self.depth(queue))

    def lane_depth(self, queue: str) -> int | None:
        """Return how many published copies wait in a queue's delay lane; None when that cannot be told."""
        return None

    def waiting(self) -> Iterable[bytes] | None:
        """Return every message that the broker has, waiting or unacknowledged, without taking it.

        None: this broker cannot be read without consuming.
        """
        return None

    def drain(self, queue: str, judge: Judge) -> int | None:
        """Remove what `judge` says of what waits in a queue, its delay lane and its dead-letter queue; the rest stays.

        Returns how many messages were removed; None: this broker cannot be drained but by consuming it. Raises
        `BrokerConnectionError` when the broker is away.
        """
        return None

    def shares_redis(self, client: redis.Redis) -> bool:
        """Whether messages and store are in one Redis, so that a crash takes the same writes from both."""
        return False

    def place(self) -> Place:
        """Tell which broker this is. Never raises; may connect."""
        kind = type(self.broker)
        return Place(f"{kind.__module__}.{kind.__qualname__}")

    def inspect(self) -> Iterable[Finding]:
        """Look at the broker before work begins; never raises for what is found, and changes nothing."""
        return ()

    def weaknesses(self) -> list[Weakness]:
        """Return the promises that are weaker on this broker."""
        found = [PREFETCHED, CUT_OFF, ACCEPTED, UNDECODABLE, LATE_COPIES, BACKLOG, DEPTH]
        return [*found, DELAYS, SPREAD] if self.broker.get_declared_delay_queues() else [*found, OWN_DELAYS]

    # -- the resurrector's queue ------------------------------------------------------------------------------

    def drop_queue(self, queue: str) -> None:
        """Remove a queue that was this process's own."""
        try:
            self.broker.flush(queue)
        except NotImplementedError:
            logger.debug("The broker cannot flush a queue.", extra={"queue": queue})


PREFETCHED = Weakness(
    "fetched",
    "What a dead worker had fetched but not begun comes back when the broker itself notices: its timeout decides.",
)
CUT_OFF = Weakness(
    "cut off",
    "A worker that cannot reach the store keeps what it has fetched and not begun until it can, or until it ends.",
)
LATE_COPIES = Weakness(
    "late copies",
    "Removals are not confirmed: the id of every ended task is kept for RELIER_RESULT_TTL, and a copy that the broker"
    " delivers later than that runs again.",
    "Raise RELIER_RESULT_TTL above the longest time for which the broker may hold a message back.",
)
ACCEPTED = Weakness(
    "accepted", "A push that returned is as safe as this broker's enqueue makes it; Relier cannot confirm it."
)
OWN_DELAYS = Weakness("delays", "Delays are as safe as the broker keeps them. Retries are in the store.")
DELAYS = Weakness(
    "delays",
    "Delayed tasks are held in worker memory. With more than 1000 a thread, what is put back may wait for"
    " RELIER_RESURRECTION_CLAIM_GRACE_PERIOD. Retries are in the store.",
)
UNDECODABLE = Weakness(
    "undecodable",
    "Bytes that cannot be decoded become a dead letter, but the broker keeps its copy, and may deliver it again.",
)
SPREAD = Weakness("spread", "One worker may take most of the tasks that are put back after a crash.")
DEPTH = Weakness("depth", "The broker cannot tell how many messages wait, so no command shows it.")
BACKLOG = Weakness("backlog", "RELIER_RESURRECTION_MAX_QUEUE_DEPTH has no effect on this broker.")
