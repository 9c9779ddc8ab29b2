"""Makes the worker process known to the fleet, and keeps it known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dramatiq import Broker, Worker
from dramatiq.middleware import Middleware

from relier.brokers.adapters import adapter_of
from relier.process import WorkerProcess
from relier.sweeper import SweeperThread
from relier.work_queue import RecoveryFirst

if TYPE_CHECKING:
    from relier.installation import Installation


class Heartbeat(Middleware):
    """Registers the process at its start, beats while it lives, and sweeps while no resurrector does.

    Settings: `RELIER_HEARTBEAT_TTL`, `RELIER_RESURRECTION_ENABLED`.
    """

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self._sweeper: SweeperThread | None = None

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        settings = self.installation.settings
        adapter = adapter_of(broker)
        adapter.begin_work()
        if adapter.delays_in_store:  # So this lane carries orphans: share them.
            worker.delay_prefetch = worker.queue_prefetch
        worker.work_queue = RecoveryFirst()
        process = WorkerProcess(broker, self.installation.store, settings, self.installation.role)
        consumed = worker.consumer_whitelist or broker.get_declared_queues()
        process.start(tuple(sorted(consumed)), worker.worker_threads)
        process.quarters.begin_boot()
        self.installation.process = process
        if settings.resurrection_enabled and process.role == "worker":
            self._sweeper = SweeperThread(process)
            self._sweeper.start()

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        if self.installation.process is not None:
            self.installation.process.quarters.end_boot()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        if self._sweeper is not None:
            self._sweeper.stop()
        if self.installation.process is not None:
            self.installation.process.stop()
