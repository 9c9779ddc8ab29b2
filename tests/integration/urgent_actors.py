"""An actor with a queue of its own: `use` makes it known to a fleet."""

from __future__ import annotations

from typing import Any

import dramatiq
from dramatiq import Broker

from relier import rl_actor
from tests.integration.actors import note
from tests.integration.harness import Harness

#: Its queue.
QUEUE = "high_priority"


def urgent(x: int) -> None:
    note("ran", x)


def declare(broker: Broker) -> Any:
    return rl_actor(urgent, broker=broker, queue=QUEUE)


def use(fleet: Harness) -> Any:
    """Have a fleet's workers declare the actor as well; returns it for the fleet's producer."""
    fleet.actor_module += f",{__name__}"
    return declare(fleet.broker)


if dramatiq.broker.global_broker is not None:  # In a worker.
    declare(dramatiq.get_broker())
