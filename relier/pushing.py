"""Pushes with a job key: the store has custody of the task before its message is published (R10)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from dramatiq import Broker, Message

from relier import failpoints
from relier.envelope import OPTION, stamp_of
from relier.errors import JobKeyRefusedError
from relier.payloads import check_size
from relier.sending import sending_of
from relier.settings import Settings
from relier.store import Custody, JobTerms, Sending, Store
from relier.store.connection import UNAVAILABLE
from relier.waiting import asked

logger = logging.getLogger(__name__)

#: A sweeper publishes what its producer did not after so many `RELIER_RESURRECTION_CLAIM_GRACE_PERIOD`s. It is not told
#: what was published, so it publishes what waits for so long in the broker as well: the longer, the fewer.
GRACES = 10

Publish = Callable[[list[Message[Any]]], None]
#: The errors of messages that are refused, by the message's identity.
Refused = dict[int, JobKeyRefusedError]
#: A task that was pushed, how, and which older one that ended.
Superseded = tuple[Sending, JobTerms, Custody]


def wants_custody(message: Message[Any]) -> bool:
    """Whether the store has to have this message before it is published: it has a job key, and comes from no store."""
    option = message.options.get(OPTION)
    return isinstance(option, dict) and "j" in option and "f" not in option


def each_unless_refused(
    messages: Sequence[Message[Any]], enqueue: Callable[[Message[Any]], Message[Any]]
) -> list[Message[Any]]:
    """Enqueue messages one by one. One that is refused for its job key keeps no other; its error comes last."""
    sent, refusals = [], []
    for message in messages:
        try:
            sent.append(enqueue(message))
        except JobKeyRefusedError as error:
            refusals.append(error)
    for refusal in refusals:
        raise refusal
    return sent


class Pushes:
    """Takes custody of what one broker's producers push.

    Parameters:
      broker: knows the actors.
      store: returns the store, on first use.
    """

    def __init__(self, broker: Broker, store: Callable[[], Store], settings: Settings) -> None:
        self._broker = broker
        self._store = store
        self._settings = settings
        self._thread = threading.local()

    # -- brokers of our own ---------------------------------------------------------------------------------------

    def publish(self, messages: list[Message[Any]], publish: Publish) -> None:
        """Publish sealed messages, those with a job key once the store has them.

        When the broker refuses, the store publishes them: that is no error any more. Raises `JobKeyRefusedError` when
        a message is refused, after the others went out, and `StoreUnavailableError`: then nothing was published, but
        the store may have it all the same.
        """
        held = [message for message in messages if wants_custody(message)]
        refused, superseded = self._take(held, None)
        ready = [message for message in messages if id(message) not in refused]
        try:
            if ready:
                publish(ready)
        except BaseException as error:
            self._hasten([message for message in held if id(message) not in refused], error)
            if len(held) < len(messages) or not isinstance(error, Exception):  # The others are nowhere.
                raise
        finally:
            self._tell(superseded)
        for refusal in refused.values():
            raise refusal

    def keep(self, message: Message[Any], delay: int) -> None:
        """Let the store have a message until its delay (ms) is over. Raises as `publish` does."""
        refused, superseded = self._take([message], delay / 1000)
        self._tell(superseded)
        for error in refused.values():
            raise error

    # -- brokers of others ----------------------------------------------------------------------------------------

    def through(
        self, message: Message[Any], delay: int | None, enqueue: Callable[..., Message[Any] | None]
    ) -> Message[Any]:
        """Enqueue a message with a job key; `sealed` is called on the way. Its delay the store keeps."""
        thread = self._thread  # A hook of this enqueue may enqueue another message.
        outer = getattr(thread, "taken", None), getattr(thread, "superseded", [])
        thread.taken, thread.superseded = None, []
        try:
            if delay is not None and delay > 0:
                self._broker.emit_before("enqueue", message, delay)
                self._broker.emit_after("enqueue", message, delay)
                return message
            return enqueue(message, delay=None) or message
        except BaseException as error:
            if thread.taken is None:
                raise
            self._hasten([thread.taken], error)
            if not isinstance(error, Exception):
                raise
            return message
        finally:
            superseded = thread.superseded
            thread.taken, thread.superseded = outer
            self._tell(superseded)

    def sealed(self, message: Message[Any], delay: int | None) -> None:
        """Take custody of a message that its broker is about to encode, if it has a job key."""
        if wants_custody(message):
            refused, self._thread.superseded = self._take([message], delay / 1000 if delay else None)
            for error in refused.values():
                raise error
            self._thread.taken = message

    # -- steps ----------------------------------------------------------------------------------------------------

    def _take(self, messages: Sequence[Message[Any]], delay: float | None) -> tuple[Refused, list[Superseded]]:
        """Take custody in one round trip; returns the errors of what is refused, and what the rest superseded."""
        failpoints.hit("before-custody")
        sendings = [(self._sending(message), self._terms(message, delay)) for message in messages]
        for message, (sending, _) in zip(messages, sendings, strict=True):
            check_size(message, len(sending.body), self._settings.max_payload_bytes)
        custodies = asked(lambda: self._store().tasks.push_many(sendings))
        failpoints.hit("in-custody")
        refused, superseded = {}, []
        for message, (sending, terms), custody in zip(messages, sendings, custodies, strict=True):
            if custody.refused_by:
                refused[id(message)] = _refusal(sending, custody)
            else:
                message.options[OPTION]["n"] = custody.rank
                superseded += [(sending, terms, custody)] if custody.superseded else []
        return refused, superseded

    def _sending(self, message: Message[Any]) -> Sending:
        return sending_of(self._broker, message, stamp_of(message), self._settings)

    def _terms(self, message: Message[Any], delay: float | None) -> JobTerms:
        actor = self._broker.actors.get(message.actor_name)
        options = actor.options if actor else {}
        return JobTerms(
            delay=GRACES * self._settings.resurrection_claim_grace_period if delay is None else delay,
            published=delay is None,
            cancels=options.get("on_superseded") != "finish",
            refuses=options.get("on_dead_job") == "refuse" and not stamp_of(message).follow_up,  # R11
        )

    def _tell(self, superseded: Iterable[Superseded]) -> None:
        """Let workers that run older tasks cancel them; one that is not reached finds out by itself, at a beat.

        Only once the newer ones are published: it may be an older one that pushes, and is interrupted here.
        """
        for sending, terms, custody in superseded:
            extra = {"task": custody.superseded, "actor": sending.actor, "by": sending.task_id}
            logger.info("A newer task with its job key superseded a task.", extra=extra)
            if custody.owner and terms.cancels:
                with suppress(*UNAVAILABLE):
                    self._store().fleet.tell(custody.owner, {"type": "cancel", "task": custody.superseded})

    def _hasten(self, messages: Sequence[Message[Any]], error: BaseException) -> None:
        """Have sweepers publish at once what the broker did not take; should that fail, when the grace is over."""
        extra = {"error": f"{type(error).__name__}: {error}"}
        logger.warning("A push was not published; the store has the task, and publishes it.", extra=extra)
        due = [(self._sending(message), replace(self._terms(message, None), delay=0.0)) for message in messages]
        with suppress(*UNAVAILABLE):
            self._store().tasks.push_many(due)


def _refusal(sending: Sending, custody: Custody) -> JobKeyRefusedError:
    letter = custody.refused_by
    return JobKeyRefusedError(
        f"Actor {sending.actor!r}: the dead letter {letter} ({custody.reason}) has this job key. Release it (rl dlq"
        f" release {letter}) or discard it first (rl tasks cancel {letter}). With on_dead_job='supersede' a push does.",
        letter,
        custody.reason,
    )
