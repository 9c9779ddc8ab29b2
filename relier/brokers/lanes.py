"""How the sweeper and its publisher reach a broker: which lane is published to, and what can be asked of it."""

from __future__ import annotations

from typing import Any

import redis
from dramatiq import Broker, Message
from dramatiq.common import dq_name, q_name

from relier.settings import Settings


class Lanes:
    """Publishes on behalf of the store. What a broker cannot do is left out.

    Brokers of our own have: `publish_many(messages)`, `lane_depth(queue)`, `return_unacked(broker_id, queues)` and
    `known_broker_ids()`.
    """

    def __init__(self, broker: Broker, settings: Settings) -> None:
        self._broker: Any = broker
        self._ours = hasattr(broker, "publish_many")
        self._deepest = settings.resurrection_max_queue_depth

    def publish(self, messages: list[Message[Any]]) -> None:
        """Publish copies to their queues' delay lanes, ahead of the backlog, where the broker has such lanes."""
        if self._ours:
            self._broker.publish_many(messages)
            return
        lanes = self._broker.get_declared_delay_queues()
        for message in messages:
            lane = dq_name(message.queue_name)
            self._broker.enqueue(message.copy(queue_name=lane) if lane in lanes else message)

    def too_deep(self, queues: set[str]) -> bool:
        """Whether copies published earlier still wait in too large a number."""
        return self._ours and sum(self._broker.lane_depth(queue) for queue in queues) > self._deepest

    def give_back(self, told: dict[str, Any]) -> None:
        """Return a dead worker's unacknowledged messages to their queues."""
        if self._ours and told.get("broker_id"):
            self._broker.return_unacked(told["broker_id"], told.get("queues", ()))

    def broker_ids(self) -> set[str]:
        """Return every broker id that may hold unacknowledged messages."""
        return set(self._broker.known_broker_ids()) if self._ours else set()


def shares_redis(broker: Any, store_client: redis.Redis) -> bool:
    """Whether a broker's messages and the store are in one Redis, so that a crash takes the same writes from both."""
    if hasattr(broker, "shares_redis"):
        return bool(broker.shares_redis)
    client = broker.__dict__.get("client")
    return isinstance(client, redis.Redis) and _place(client) == _place(store_client)


def _place(client: redis.Redis) -> tuple[Any, ...]:
    kwargs = client.connection_pool.connection_kwargs
    return kwargs.get("path"), kwargs.get("host", "localhost"), int(kwargs.get("port", 6379))


def give_back(broker: Broker, message: Any) -> None:
    """Put a copy back to its queue, in place of the removal that its acknowledgement would be."""
    if hasattr(message, "give_back"):
        message.give_back = True
    else:
        broker.enqueue(Message(**{**message.asdict(), "queue_name": q_name(message.queue_name)}))
