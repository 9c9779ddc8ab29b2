"""How the sweeper reaches a broker: where it publishes to, and what it can ask of the broker."""

from __future__ import annotations

from typing import Any

from dramatiq import Broker, Message

from relier.brokers.adapters import adapter_of


class Lanes:
    """Publishes on behalf of the store. What a broker cannot do is left out."""

    def __init__(self, broker: Broker) -> None:
        self._adapter = adapter_of(broker)

    @property
    def broker(self) -> Broker:
        found: Broker = self._adapter.broker
        return found

    def publish(self, messages: list[Message[Any]]) -> None:
        """Publish copies to their queues' delay lanes, ahead of the backlog, where the broker has such lanes."""
        self._adapter.publish(messages)

    def depth(self, queues: set[str]) -> int:
        """Return how many copies published earlier still wait; 0 where the broker cannot tell."""
        return sum(self._adapter.lane_depth(queue) or 0 for queue in queues)

    def give_back(self, told: dict[str, Any]) -> None:
        """Return a dead worker's unacknowledged messages to their queues."""
        self._adapter.return_unacked(told)

    def broker_ids(self) -> set[str]:
        """Return every broker id that may hold unacknowledged messages."""
        return self._adapter.known_broker_ids()


def give_back(message: Any) -> None:
    """Let a copy go back to its queue, in place of the removal that its acknowledgement would be."""
    message.give_back = True
