"""Fleets on brokers that are not Relier's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dramatiq import Broker
from dramatiq.common import dq_name

from tests.integration.harness import Harness
from tests.servers import RabbitmqServer, RedisServer
from tests.third_party.brokers import VARIABLE, make_broker


class ForeignFleet(Harness):
    """A fleet whose broker an application brought along.

    Parameters:
      kind: of `tests.third_party.brokers.KINDS`.
      where: URL or path of the broker.
      rabbitmq: the server, which alone knows how many messages are not acknowledged.
      server, folder, options: see `Harness`.
    """

    def __init__(
        self,
        server: RedisServer,
        folder: Path,
        *,
        kind: str,
        where: str,
        rabbitmq: RabbitmqServer | None = None,
        **options: Any,
    ) -> None:
        self.kind, self.where, self.rabbitmq = kind, where, rabbitmq
        super().__init__(server, folder, **options)
        self.environ = {VARIABLE: f"{kind} {where}"}
        self.actor_module = "tests.third_party.worker_actors"

    def make_broker(self) -> Broker:
        return make_broker(self.kind, self.where, self.settings)

    def held(self, queue: str) -> int:
        if self.rabbitmq is not None:
            queues = self.rabbitmq.queues(self.where)
            lanes = (queue, dq_name(queue))
            return sum(queues[lane].ready + queues[lane].unacked for lane in lanes if lane in queues)
        return int(self.broker.count(queue) if self.kind == "sqlite" else self.broker.do_qsize(queue))
