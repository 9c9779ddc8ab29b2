"""What is enqueued, and what the store needs to know of it in order to publish it again by itself."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from dramatiq import Broker, Message
from dramatiq.common import q_name
from dramatiq.worker import ConsumerThread

from relier.admission import admission_of
from relier.arrivals import arrived_unsigned, goes_on, may_vouch
from relier.envelope import (
    HIGHEST_FENCE,
    OPTION,
    Stamp,
    is_stamped,
    keeps_stamps,
    stamp_again,
    stamp_first_hand,
    version_of,
)
from relier.idempotency import key_of, terms_of
from relier.job_keys import job_of
from relier.objectives import note_delay
from relier.on_dead import named
from relier.settings import Settings
from relier.store import Sending


def prepared(broker: Broker, message: Message[Any], delay: int | None = None) -> Message[Any]:
    """Return a message as it is to be enqueued, perhaps after a delay (ms): admitted and with a stamp.

    One that has a stamp keeps it when Relier enqueues it, or Dramatiq because its delay is over. Anybody else means a
    task of its own: a middleware that puts its message off and skips it, code that sends what a callback was given.

    Raises `AdmissionRejectedError`.
    """
    if not is_first_hand(message):
        return message
    if (admission := admission_of(broker)) is not None:
        admission.admit(message)
    stamped = _stamped(broker, message)
    note_delay(broker, stamped, delay)
    return stamped


def prepared_together(broker: Broker, messages: Iterable[Message[Any]]) -> list[Message[Any]]:
    """Return messages as they are to be enqueued: all are admitted, or none is. Raises as `prepared` does."""
    messages = list(messages)
    if (admission := admission_of(broker)) is not None:
        admission.admit_all(message for message in messages if is_first_hand(message))
    return [_stamped(broker, message) if is_first_hand(message) else message for message in messages]


def is_first_hand(message: Message[Any]) -> bool:
    """Whether who enqueues this message means a task of its own."""
    if not is_stamped(message):
        return True
    return not (keeps_stamps() or _is_promotion())


def _is_promotion() -> bool:
    """Whether Dramatiq enqueues a message because its delay is over: nobody vouches for it anew."""
    return isinstance(threading.current_thread(), ConsumerThread)


def _stamped(broker: Broker, message: Message[Any]) -> Message[Any]:
    key, job, fresh = key_of(broker, message), job_of(broker, message), may_vouch(message) and not _is_promotion()
    when = 0 if goes_on(message) or _is_promotion() else enqueued_ms(broker)
    if is_stamped(message):
        return stamp_again(message, key, job=job, fresh=fresh, enqueued_ms=when)
    version = version_of(message) if OPTION in message.options else payload_version(broker, message.actor_name)
    plain = with_versions(broker, message)
    return stamp_first_hand(plain, version, key, job=job, fresh=fresh, enqueued_ms=when)


def enqueued_ms(broker: Broker) -> int:
    """Return the time for the stamp of what is enqueued now; 0 where nobody knows the store."""
    admission = admission_of(broker)
    return 0 if admission is None else admission.clock.now_ms()


def sending_of(broker: Broker, message: Any, stamp: Stamp, settings: Settings) -> Sending:
    """Describe a message or a message proxy."""
    raw = getattr(message, "raw", None)
    return Sending(
        task_id=stamp.task_id,
        shard=stamp.shard,
        queue=stamp.queue or q_name(message.queue_name),
        actor=message.actor_name,
        body=raw if isinstance(raw, bytes) else bytes_of(message),
        payload_version=stamp.payload_version,
        max_resurrections=max_resurrections(broker, message.actor_name, settings),
        follow_up=stamp.follow_up,
        key=terms_of(broker, message, stamp.key, settings),
        unsigned=arrived_unsigned(message),
        on_dead=told_of_death(broker, message.actor_name, settings),
        created=max(0, min(stamp.created_ms, HIGHEST_FENCE // 1000)) / 1000,  # A stamp may hold any number.
        job=stamp.job,
        rank=stamp.rank or stamp.fence,
    )


def bytes_of(message: Any) -> bytes:
    """Encode a message as it was when it was consumed: middlewares may have changed its options since."""
    options = message.__dict__.get("options_delivered")
    whole = message if options is None else Message(**{**message.asdict(), "options": options})
    encoded: bytes = whole.encode()
    return encoded


def max_resurrections(broker: Broker, actor_name: str, settings: Settings) -> int:
    """Return how many crashes a task of the actor survives."""
    actor = broker.actors.get(actor_name)
    options = actor.options if actor else {}
    if options.get("on_crash") == "dead":
        return 0
    limit = options.get("max_resurrections")
    return settings.max_resurrections if limit is None else int(limit)


def told_of_death(broker: Broker, actor_name: str, settings: Settings) -> str:
    """Return who gets the dead record of an actor's task, as the store keeps it; '' for nobody.

    Queue, actor, its payload version and its max_resurrections, each on a line. An actor that this process lacks is
    looked for where the task itself runs.
    """
    actor = broker.actors.get(actor_name)
    name = named(actor.options) if actor is not None and "on_dead" in actor.options else ""
    if actor is None or not name:
        return ""
    target = broker.actors.get(name, actor)
    version, limit = payload_version(broker, name), max_resurrections(broker, name, settings)
    return f"{target.queue_name}\n{name}\n{version}\n{limit}"


def payload_version(broker: Broker, actor_name: str) -> int:
    """Return the payload version that this process writes for an actor."""
    actor = broker.actors.get(actor_name)
    return int(actor.options.get("schema_version") or 1) if actor else 1


def with_versions(broker: Broker, message: Message[Any]) -> Message[Any]:
    """Return a message whose follow-ups (later stages, a group's callbacks) carry their payload versions.

    They were written by this process, and will be enqueued by whichever worker runs the stage before them.
    """
    target, callbacks = message.options.get("pipe_target"), message.options.get("group_completion_callbacks")
    if not target and not callbacks:
        return message
    options: dict[str, Any] = {}
    if isinstance(target, dict):
        options["pipe_target"] = _versioned(broker, target)
    if isinstance(callbacks, list):
        options["group_completion_callbacks"] = [_versioned(broker, callback) for callback in callbacks]
    return message.copy(options=options)


def _versioned(broker: Broker, fields: dict[str, Any]) -> dict[str, Any]:
    try:
        message: Message[Any] = with_versions(broker, Message(**fields))
    except TypeError:  # somebody else's option of that name
        return fields
    version = payload_version(broker, message.actor_name)
    if version != 1 and OPTION not in message.options:
        message = message.copy(options={OPTION: {"p": version}})
    return message.asdict()
