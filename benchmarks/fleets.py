"""Fleets on servers of their own, for one benchmark."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests import sources
from tests.conformance.topologies import RabbitmqFleet
from tests.integration.harness import Harness


@contextmanager
def a_fleet(broker: str, server: str) -> Iterator[Harness]:
    """Give a fleet on a store of kind `server`, with its messages in the same one or in RabbitMQ; ends everything."""
    with ExitStack() as stack:
        store = sources.start(server, private=True)
        stack.callback(store.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rl-benchmark-")))
        if broker == "rabbitmq":
            rabbitmq = sources.start_rabbitmq(private=True)
            stack.callback(rabbitmq.close)
            fleet: Harness = RabbitmqFleet(store, folder, rabbitmq=rabbitmq, broker_url=rabbitmq.url)
        else:
            fleet = Harness(store, folder)
        stack.callback(fleet.close)
        yield fleet
