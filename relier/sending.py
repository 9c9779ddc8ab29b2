"""What the store needs to know of a message in order to publish it again by itself."""

from __future__ import annotations

from typing import Any

from dramatiq import Broker
from dramatiq.common import q_name

from relier.envelope import Stamp
from relier.settings import Settings
from relier.store import Sending


def sending_of(broker: Broker, message: Any, stamp: Stamp, settings: Settings) -> Sending:
    """Describe a message or a message proxy."""
    raw = getattr(message, "raw", None)
    return Sending(
        task_id=stamp.task_id,
        shard=stamp.shard,
        queue=q_name(message.queue_name),
        actor=message.actor_name,
        body=raw if isinstance(raw, bytes) else message.encode(),
        payload_version=stamp.payload_version,
        max_resurrections=max_resurrections(broker, message.actor_name, settings),
        follow_up=stamp.follow_up,
    )


def max_resurrections(broker: Broker, actor_name: str, settings: Settings) -> int:
    """Return how many crashes a task of the actor survives."""
    actor = broker.actors.get(actor_name)
    options = actor.options if actor else {}
    if options.get("on_crash") == "dead":
        return 0
    limit = options.get("max_resurrections")
    return settings.max_resurrections if limit is None else int(limit)


def payload_version(broker: Broker, actor_name: str) -> int:
    """Return the payload version that this process writes for an actor."""
    actor = broker.actors.get(actor_name)
    return int(actor.options.get("schema_version") or 1) if actor else 1
