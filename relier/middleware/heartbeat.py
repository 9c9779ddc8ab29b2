"""Makes the worker process known to the fleet, and keeps it known."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from typing import TYPE_CHECKING

from dramatiq import Broker, Worker
from dramatiq.common import q_name
from dramatiq.middleware import Middleware, MiddlewareError

from relier.brokers.adapters import adapter_of
from relier.ending import end_in_order
from relier.endurance import lost_threads
from relier.errors import RelierStartupError
from relier.process import WorkerProcess
from relier.sweeper import SweeperThread
from relier.work_queue import RecoveryFirst

if TYPE_CHECKING:
    from relier.installation import Installation

logger = logging.getLogger(__name__)


class CannotJoinError(RelierStartupError, MiddlewareError):
    """A worker that cannot join the fleet must not run tasks: nobody would notice its death.

    Dramatiq would swallow any other error of a hook and run unprotected.
    """


class Heartbeat(Middleware):
    """Registers the process at its start, beats while it lives, and sweeps while no resurrector does.

    Settings: `RELIER_HEARTBEAT_TTL`, `RELIER_RESURRECTION_ENABLED`.
    """

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self._sweeper: SweeperThread | None = None
        self._stopping = False
        #: Whether the worker consumes every queue that is declared, also from now on.
        self._takes_all = False

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        try:
            self._join(broker, worker)
        except Exception as error:
            raise CannotJoinError(f"This worker cannot join the fleet ({type(error).__name__}: {error}).") from error

    def _join(self, broker: Broker, worker: Worker) -> None:
        settings = self.installation.settings
        adapter = adapter_of(broker)
        adapter.begin_work()
        if adapter.delays_in_store:  # So this lane carries orphans: share them.
            worker.delay_prefetch = worker.queue_prefetch
        worker.work_queue = RecoveryFirst()
        process = WorkerProcess(broker, self.installation.store, settings, self.installation.role)
        consumed = worker.consumer_whitelist or {q_name(queue) for queue in broker.get_declared_queues()}
        self._takes_all = not worker.consumer_whitelist
        self._stopping = False
        process.chores.append(lambda: self._end_if_crippled(worker))
        process.start(tuple(sorted(consumed)), worker.worker_threads)
        process.quarters.begin_boot()
        self.installation.process = process
        if settings.resurrection_enabled and process.role == "worker":
            self._sweeper = SweeperThread(process)
            self._sweeper.start()

    def after_declare_queue(self, broker: Broker, queue_name: str) -> None:
        if self._takes_all and self.installation.process is not None:
            self.installation.process.also_consumes(q_name(queue_name))

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        if self.installation.process is not None:
            self.installation.process.quarters.end_boot()

    def _end_if_crippled(self, worker: Worker) -> None:
        """End a worker that lost one of its threads: another one takes over what that held."""
        if not self._stopping and (lost := lost_threads(worker)) and not self._stopping:
            self._stopping = True
            logger.error("A thread of this worker ended; the worker ends as well.", extra={"threads": lost})
            if multiprocessing.parent_process() is not None:  # Else it is a worker in somebody's own process.
                process = self.installation.process
                ending = threading.Thread(target=end_in_order, args=(lambda: process,), daemon=True)
                ending.start()

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        self._stopping = True

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        if self._sweeper is not None:
            self._sweeper.stop()
        if self.installation.process is not None:
            self.installation.process.stop()
