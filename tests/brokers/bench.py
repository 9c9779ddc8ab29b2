"""A RabbitMQ broker with a few actors and, when asked for, a worker, all in the test's process."""

from __future__ import annotations

import threading
from typing import Any

import dramatiq
from dramatiq import Message, Worker

from relier.brokers.rabbitmq import RelierRabbitmqBroker
from relier.settings import Settings
from relier.store import Record
from tests.servers import RabbitmqServer
from tests.servers.rabbitmq_servers import Queue
from tests.waiting import wait_until

#: How long (s) a test waits for what takes milliseconds on a quiet machine.
PATIENCE = 30.0


class Bench:
    """One broker on one virtual host.

    Parameters:
      server: whose queues are looked at.
      vhost: URL of the virtual host.
      store_url: Redis for the store.
      options: further settings, by field name.
    """

    def __init__(self, server: RabbitmqServer, vhost: str, store_url: str, **options: Any) -> None:
        self.server = server
        self.vhost = vhost
        self.settings = Settings(redis_url=store_url, broker_url=vhost, **options)
        self.broker = RelierRabbitmqBroker(settings=self.settings)
        self.store = self.broker.store
        #: What the actors did: (actor, argument), in order.
        self.done: list[tuple[str, Any]] = []
        self.began: list[Any] = []
        #: Opens the actor `gated`.
        self.gate = threading.Event()
        self.workers: list[Worker] = []
        self._declare()

    def _declare(self) -> None:
        def quick(value: Any = None) -> None:
            self.done.append(("quick", value))

        def gated(value: Any = None) -> None:
            self.began.append(value)
            assert self.gate.wait(2 * PATIENCE)
            self.done.append(("gated", value))

        def failing(value: Any = None) -> None:
            self.began.append(value)
            raise ConnectionError(value)

        self.quick: Any = dramatiq.actor(broker=self.broker)(quick)
        self.gated: Any = dramatiq.actor(broker=self.broker)(gated)
        self.failing: Any = dramatiq.actor(broker=self.broker, min_backoff=60_000, max_backoff=60_000)(failing)

    def work(self, threads: int = 2) -> Worker:
        """Start a worker; a test has one at a time."""
        worker = Worker(self.broker, worker_threads=threads, worker_timeout=100)
        worker.start()
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        """Stop the worker, and wait until it has."""
        while self.workers:
            self.workers.pop().stop()

    def close(self) -> None:
        self.gate.set()
        self.stop()
        self.broker.close()
        self.store.close()

    # -- what happened ------------------------------------------------------------------------------------------

    def values(self, actor: str = "quick") -> list[Any]:
        """Return the arguments of the runs of one actor that ended, sorted."""
        return sorted(value for name, value in list(self.done) if name == actor)

    def queues(self) -> dict[str, Queue]:
        return self.server.queues(self.vhost)

    def queue(self, name: str = "default") -> Queue:
        return self.queues()[name]

    def held(self) -> int:
        """Return how many messages are in queues or in workers' hands."""
        return sum(queue.ready + queue.unacked for queue in self.queues().values())

    def wait(self, condition: Any, what: str) -> Any:
        return wait_until(condition, PATIENCE, what)

    def settle(self) -> None:
        """Wait until RabbitMQ has no message any more."""
        self.wait(lambda: self.held() == 0, f"empty queues: {self.queues()}")

    def cut(self, abruptly: bool = True) -> None:
        """End every connection to the virtual host."""
        self.wait(lambda: self.server.close_connections(self.vhost, abruptly), "a connection to cut")

    def record(self, message: Message[Any]) -> Record | None:
        return self.store.record(message.message_id)

    def counters(self) -> dict[str, int]:
        return self.store.counters()
