"""Dramatiq's time limit, for sync actors only."""

from __future__ import annotations

from dramatiq import Broker
from dramatiq.broker import MessageProxy
from dramatiq.middleware import time_limit

from relier.lifecycle import is_async


class TimeLimit(time_limit.TimeLimit):
    """Interrupts sync actors that run longer than `time_limit` milliseconds. Defaults to Dramatiq's 10 minutes.

    Async actors are cancelled on their event loop instead; an exception in the waiting thread would not reach them.
    """

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        if not is_async(broker.get_actor(message.actor_name)):
            super().before_process_message(broker, message)  # type: ignore[no-untyped-call]
