"""What every broker of Relier's own has."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from dramatiq import Broker, Message
from dramatiq.common import q_name
from dramatiq.middleware import Middleware, MiddlewareError
from dramatiq.results import Results

from relier.arrivals import mark
from relier.brokers.delivery import Delivery
from relier.brokers.peek import Head, heads_of
from relier.brokers.place import Place
from relier.brokers.rejected import REASON, refused
from relier.brokers.results import quiet_results
from relier.declining import declined, is_newer
from relier.envelope import OPTION, parsed, stamp_of
from relier.errors import PayloadIntegrityError
from relier.hooks import encode_failure
from relier.integrity import Integrity, announce
from relier.payloads import check_size
from relier.preflight import Finding
from relier.pushing import Publish, Pushes, wants_custody
from relier.queues import is_internal
from relier.sending import prepared, prepared_together, sending_of
from relier.settings import Settings
from relier.store import Sending, Store, get_store, shard_of

if TYPE_CHECKING:
    from relier.brokers.generic import Judge


class OwnBroker(Broker, ABC):
    """A broker whose delays and dead letters are in the store, and that tells what becomes of each copy.

    Its deliveries are `relier.brokers.delivery.Delivery`.
    """

    settings: Settings
    #: Names this process's consumers to the fleet; another one after each `renew_broker_id`.
    broker_id: str
    #: Queues from which nothing is taken, and what takes unstarted messages of a lane away from worker threads.
    closed: frozenset[str] = frozenset()
    unstarted: Callable[[str], list[Any]] = staticmethod(lambda lane: [])
    #: The middlewares that `_hooks` was made of, and those that have a hook, by its name.
    _hooks_of: Sequence[Middleware] = ()
    _hooks: dict[str, list[Middleware]]

    def _complete(self) -> None:
        """Add Results and Relier's middlewares: the last step of a constructor."""
        if not any(isinstance(m, Results) for m in self.middleware):
            self.add_middleware(quiet_results(self))
        from relier.installation import install

        install(self, self.settings)

    @cached_property
    def store(self) -> Store:
        return get_store(self.settings)

    @cached_property
    def _pushes(self) -> Pushes:
        return Pushes(self, lambda: self.store, self.settings)

    @cached_property
    def integrity(self) -> Integrity:
        return Integrity.of(self.settings)

    # -- what each broker does its own way ----------------------------------------------------------------------

    @property
    @abstractmethod
    def shares_redis(self) -> bool:
        """Whether broker and store are the same Redis: then they lose and keep the same writes."""

    @abstractmethod
    def _send(self, message: Message[Any]) -> Message[Any]:
        """Append a stamped message to its queue, hooks included; returns it as it was sent."""

    @abstractmethod
    def enqueue_many(self, messages: Iterable[Message[Any]]) -> list[Message[Any]]:
        """Enqueue messages in as few round trips as possible; all are encoded before the first is sent."""

    @abstractmethod
    def publish_many(self, messages: Iterable[Message[Any]]) -> list[Message[Any]]:
        """Publish copies that the store keeps, to their queues' delay lanes: every consumer takes those first."""

    @abstractmethod
    def return_unacked(self, broker_id: str, queues: Iterable[str]) -> None:
        """Return a dead broker id's messages to their queues, and refuse it from now on."""

    @abstractmethod
    def known_broker_ids(self) -> set[str]:
        """Return every broker id that may hold messages until `return_unacked` is called for it."""

    @abstractmethod
    def renew_broker_id(self) -> None:
        """Consume under a new id from now on; copies held under the old one are void."""

    @abstractmethod
    def withdraw(self) -> None:
        """Return what was not started to its queues, and take nothing until `resume`: the store is out of reach."""

    @abstractmethod
    def resume(self) -> None:
        """Consume again after `withdraw`."""

    def is_closed(self, lane: str) -> bool:
        """Whether nothing is taken from a queue or delay lane: it is paused."""
        return bool(self.closed) and q_name(lane) in self.closed

    @abstractmethod
    def lane_depth(self, queue: str) -> int:
        """Return how many published copies wait in a queue's delay lane."""

    @abstractmethod
    def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue and its delay lane."""

    def held(self, queue: str) -> int | None:
        """Return how many messages of a queue workers hold unacknowledged; None where that cannot be told."""
        return None

    def oldest(self, queue: str) -> float | None:
        """Return when the message at a queue's head was made (s since the epoch); None where that cannot be told."""
        return None

    def heads(self, queues: Sequence[str]) -> dict[str, Head]:
        """Return depth and oldest of several queues."""
        return heads_of(self, queues)

    def queues_with_messages(self) -> set[str]:
        """Return the queues that have messages, where that can be told without their names."""
        return set()

    @abstractmethod
    def has_queue(self, queue: str) -> bool:
        """Whether the broker has a queue."""

    def waiting(self) -> Iterable[bytes] | None:
        """Return every message that the broker has, without taking it; None where that is impossible."""
        return None

    def drain(self, queue: str, judge: Judge) -> int | None:
        """Remove what `judge` says of what waits in a queue and its lanes; see `relier.brokers.generic.Adapter`."""
        return None

    @abstractmethod
    def place(self) -> Place:
        """Tell which broker this is. Never raises, changes nothing, may connect."""

    def mark_place(self) -> None:
        """Give the broker a name by which `place` knows it under every address, where it has none of its own."""

    @abstractmethod
    def do_qsize(self, queue_name: str) -> int:
        """Return how many messages of a queue wait, and, where the broker can tell, how many are unacknowledged."""

    @abstractmethod
    def inspect(self) -> Iterable[Finding]:
        """Look at the broker before work begins; never raises for what is found, and changes nothing."""

    # -- hooks: as in Dramatiq, but those that do nothing are not called ----------------------------------------

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        name = "before_" + signal
        for middleware in self._hooked(name):
            try:
                getattr(middleware, name)(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                self.logger.critical("Unexpected failure in %s of %r.", name, middleware, exc_info=True)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        name = "after_" + signal
        for middleware in reversed(self._hooked(name)):
            try:
                getattr(middleware, name)(self, *args, **kwargs)
            except Exception:
                self.logger.critical("Unexpected failure in %s of %r.", name, middleware, exc_info=True)

    def _hooked(self, name: str) -> list[Middleware]:
        """Return the middlewares that have a hook of this name, in order. Most have few of the twenty."""
        if self._hooks_of != self.middleware:
            self._hooks_of, self._hooks = list(self.middleware), {}
        found = self._hooks.get(name)
        if found is None:
            nothing = getattr(Middleware, name, None)
            found = [m for m in self.middleware if name in vars(m) or getattr(type(m), name, None) is not nothing]
            self._hooks[name] = found
        return found

    # -- enqueueing ---------------------------------------------------------------------------------------------

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Enqueue a message; with a `delay` in milliseconds the store keeps it until then.

        Raises what the broker raises when it is away, redis-py's errors for a delay when the store is away, and
        `PayloadTooLargeError`: nothing was accepted then.
        """
        message = prepared(self, message, delay)
        if delay is None or delay <= 0:
            return self._send(message)
        self._announce(message, delay)
        if wants_custody(message):
            self._pushes.keep(message, delay)
        else:
            sending = sending_of(self, message, stamp_of(message), self.settings)
            check_size(message, len(sending.body), self.settings.max_payload_bytes)
            self.store.tasks.schedule(sending, delay / 1000)
        self.emit_after("enqueue", message, delay)
        return message

    def _first_hand(self, messages: Iterable[Message[Any]]) -> list[Message[Any]]:
        return prepared_together(self, messages)

    def _out(self, messages: list[Message[Any]], publish: Publish) -> None:
        """Publish messages that were announced; those with a job key once the store has them."""
        if any(wants_custody(message) for message in messages):
            self._pushes.publish(messages, publish)
        else:
            publish(messages)

    def _announce(self, message: Message[Any], delay: int | None = None) -> None:
        announce(self, self.integrity, message, delay)

    def _encoded(self, message: Message[Any]) -> bytes:
        """Return an announced message as it is sent. Raises `PayloadTooLargeError`."""
        encoded: bytes = message.encode()
        if not wants_custody(message):  # Else it was checked before the store took it, and has got its rank since.
            check_size(message, len(encoded), self.settings.max_payload_bytes)
        return encoded

    # -- copies that are not run --------------------------------------------------------------------------------

    def refuse(self, delivery: Delivery) -> bool:
        """Keep a message that is not what a producer sent as a dead letter, before anything is done in its name.

        True: the copy is to be acknowledged.
        """
        try:
            delivery.stamp = parsed(delivery.options.get(OPTION))
            mark(delivery, self.integrity.examine(delivery._message, delivery.stamp))
        except PayloadIntegrityError as error:
            letter, failure = refused(delivery, delivery.raw, error)
            self._entrust(delivery, lambda: self.store.tasks.dead_letter(letter, REASON, failure))
            return True
        return False

    def keep_delay(self, delivery: Delivery) -> bool:
        """Let the store take a delay that came with the message (`eta`, from plain Dramatiq).

        True: the store has it, the copy is to be acknowledged. False: there is none, or its time has come.
        """
        eta = delivery.options.get("eta")
        if not isinstance(eta, int | float) or (delay := eta / 1000 - time.time()) <= 0:
            delivery.options.pop("eta", None)
            return False
        sending = sending_of(self, delivery, stamp_of(delivery), self.settings)
        self._entrust(delivery, lambda: self.store.tasks.schedule(sending, delay))
        return True

    def decline(self, delivery: Delivery) -> bool:
        """Let the store take a task whose actor this process lacks, or that is newer than its code, for another worker.

        True: the copy is to be acknowledged, or goes back. False: it can be run here.
        """
        is_ours = delivery.actor_name in self.actors and not is_newer(self, delivery)
        if is_ours or is_internal(delivery.queue_name):
            return False
        delivery.give_back = not self._entrust(delivery, partial(declined, self.store, self, delivery, self.settings))
        return True

    def dead_letter(self, delivery: Delivery, reason: str, error: BaseException) -> None:
        """Keep a message that cannot be run as a dead letter; returns when the store has it."""
        stamp = stamp_of(delivery)
        sending = sending_of(self, delivery, stamp, self.settings)
        failure = encode_failure(error)
        self._entrust(delivery, lambda: self.store.tasks.dead_letter(sending, reason, failure, stamp.fence))

    def dead_letter_raw(self, delivery: Delivery, name: str, error: BaseException) -> None:
        """Keep bytes that cannot be decoded as a dead letter; `name` is the same at each delivery of them."""
        task_id = f"raw-{name}"
        sending = Sending(task_id, shard_of(task_id), q_name(delivery.queue_name), "", delivery.raw)
        failure = encode_failure(error)
        self._entrust(delivery, lambda: self.store.tasks.dead_letter(sending, REASON, failure))

    def _entrust(self, delivery: Delivery, take: Callable[[], bool]) -> bool:
        """Let the store take a task; the acknowledgement of its copy then waits until that is durable (R4)."""
        generation = self.store.runner.generation
        taken = take()
        if not self.shares_redis:
            delivery.pledge = self.store.custody.pledge(generation)
        return taken
