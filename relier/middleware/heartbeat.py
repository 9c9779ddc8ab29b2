"""Makes the worker process known to the fleet, and keeps it known."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import TYPE_CHECKING

from dramatiq import Broker, Worker
from dramatiq.common import q_name
from dramatiq.middleware import Middleware, MiddlewareError
from dramatiq.worker import WorkerThread

from relier.booting import after_told
from relier.brokers.adapters import adapter_of
from relier.drain import Drain
from relier.ending import KILLED, end_in_order
from relier.endurance import lost_threads
from relier.errors import RelierStartupError
from relier.hosting import Hosting
from relier.orders import obey
from relier.process import WorkerProcess
from relier.sweeper import SweeperThread
from relier.work_queue import RecoveryFirst

if TYPE_CHECKING:
    from relier.installation import Installation

logger = logging.getLogger(__name__)


#: How long (s) a process that ends in order waits for the spans that it has not exported.
FLUSH_WITHIN = 1.0


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
        if self.installation.process is not None:  # An earlier worker of this process left, and is being buried.
            adapter.renew_broker_id()
            adapter.resume()
        if adapter.delays_in_store:  # So this lane carries orphans: share them.
            worker.delay_prefetch = worker.queue_prefetch
        process = WorkerProcess(broker, self.installation.store, settings, self.installation.role)
        process.tracing = self.installation.tracing
        queue = worker.work_queue = RecoveryFirst(process.deferred)
        adapter.works_from(queue.take_out)
        if process.takes_chaos:
            _allow_chaos(broker, worker, process)
        consumed = worker.consumer_whitelist or {q_name(queue) for queue in broker.get_declared_queues()}
        self._takes_all = not worker.consumer_whitelist
        self._stopping = False
        drain = self.installation.drain = Drain(process, worker, self._let_go)
        process.heartbeat.chores.append(lambda: self._end_if_crippled(worker, drain))
        obey(process, drain)
        process.start(tuple(sorted(consumed)), worker.worker_threads)
        process.quarters.begin_boot()
        self.installation.process = process
        drain.joined = True
        if settings.resurrection_enabled and process.role == "worker":
            self._sweeper = SweeperThread(process)
            self._sweeper.start()

    def after_declare_queue(self, broker: Broker, queue_name: str) -> None:
        if self._takes_all and self.installation.process is not None:
            self.installation.process.also_consumes(q_name(queue_name))

    def after_worker_boot(self, broker: Broker, worker: Worker) -> None:
        if self.installation.process is not None:
            after_told(self.installation.process.quarters.end_boot)

    def _end_if_crippled(self, worker: Worker, drain: Drain) -> None:
        """End a worker that lost one of its threads: another one takes over what that held."""
        if not self._stopping and (lost := lost_threads(worker)) and not self._stopping:
            self._stopping = True
            logger.error("A thread of this worker ended; the worker ends as well.", extra={"threads": lost})
            if _owns_process(drain.process):
                drain.exit_code = KILLED
                os.kill(os.getpid(), signal.SIGTERM)

    def _let_go(self) -> None:
        if self._sweeper is not None:
            self._sweeper.let_go()

    def before_worker_thread_shutdown(self, broker: Broker, thread: WorkerThread) -> None:
        if self.installation.process is not None:
            self.installation.process.deferred.flush()

    def before_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        self._stopping = True
        drain = self.installation.drain
        if drain is None:
            return
        if _owns_process(drain.process):
            threading.Thread(target=end_in_order, args=(drain,), name="relier-ending", daemon=True).start()
        else:
            drain.begin()
            drain.end()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        """Leave. Under Dramatiq's command line the process then ends with what the drain says as its code."""
        if self._sweeper is not None:
            self._sweeper.stop()
        process, drain = self.installation.process, self.installation.drain
        if process is None or drain is None:
            return
        code = drain.exit_code if process.stop() else KILLED
        if process.tracing is not None:
            process.tracing.flush(FLUSH_WITHIN)
        if code and _owns_process(process):
            raise SystemExit(code)


def _allow_chaos(broker: Broker, worker: Worker, process: WorkerProcess) -> None:
    from relier.chaos.obedience import obey_chaos, take_part

    obey_chaos(process)
    take_part(broker, worker)


def _owns_process(process: WorkerProcess) -> bool:
    """Whether the process is there for this worker alone: one of Dramatiq's command line."""
    return process.role == "worker" and process.hosting is not Hosting.EMBEDDED
