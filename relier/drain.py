"""Taking a worker out of service: what SIGTERM, `rl worker drain` and `rl worker restart` have in common.

At once nothing more is fetched, and what was not started goes back to its queues. Running tasks may end within
`RELIER_GRACEFUL_SHUTDOWN_TIMEOUT`. What still runs then is handed over: fence first, then cancel. Then the worker is
drained; it stays so, or it leaves the fleet and its process ends (see `relier.ending`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from dramatiq import Worker

from relier.brokers.lanes import give_back
from relier.process import WorkerProcess
from relier.runs import Phase
from relier.work_queue import RecoveryFirst

logger = logging.getLogger(__name__)

#: How long (s) what was handed over gets to clean up, and acknowledgements to leave.
MOMENT = 0.4
#: How often (s) a draining worker looks whether anything still runs.
LOOK = 0.02


class Drain:
    """One worker's way out of service. Whatever asks for it, it goes it once.

    Parameters:
      process: the worker's.
      worker: Dramatiq's.
      let_go: gives back the leases of this worker's sweeper; returns at once.
    """

    def __init__(self, process: WorkerProcess, worker: Worker, let_go: Callable[[], None] = lambda: None) -> None:
        self.process = process
        self.worker = worker
        self._let_go = let_go
        self._lock = threading.Lock()
        #: When (monotonic) what still runs is handed over; None until somebody asks for a drain.
        self.deadline: float | None = None
        #: Set once nothing of this worker's runs any more, as far as the store is concerned.
        self.drained = threading.Event()
        self._ends = threading.Event()
        #: Whether the worker has joined the fleet; before that it takes no task.
        self.joined = False
        #: Set once this worker has left the fleet, or could not.
        self.over = threading.Event()
        #: Whether everything was handed over and the fleet knows that this worker has left.
        self.clean = False
        #: With which code its process ends when all went well.
        self.exit_code = 0

    def begin(self) -> float:
        """Stop taking tasks, and return at once with the time (monotonic) at which what still runs is handed over."""
        with self._lock:
            if self.deadline is None:
                self.deadline = time.monotonic() + self.process.settings.graceful_shutdown_timeout
                self.process.state = "draining"
                # Two threads: a broker that does not answer must not hold up what the store is to be told.
                for name, step in (("relier-give-back", self._stop_taking), ("relier-drain", self._drain)):
                    threading.Thread(target=step, name=name, daemon=True).start()
            return self.deadline

    def end(self) -> None:
        """Leave the fleet once drained."""
        self._ends.set()

    @property
    def is_stuck(self) -> bool:
        """Whether a thread still runs what was handed over."""
        return any(run.phase is Phase.LOST for run in self.process.runs.running())

    # -- at once ------------------------------------------------------------------------------------------------

    def _stop_taking(self) -> None:
        """Take nothing more, and return what was not started. A broker that cannot stop to fetch keeps it."""
        self._let_go()
        try:
            stopped = self.process.adapter.stop_taking()
        except Exception:
            logger.exception("The broker did not take note; what was only fetched comes back when this process ends.")
            return
        queue = self.worker.work_queue
        if stopped and isinstance(queue, RecoveryFirst):
            queue.turn_away(self._give_back)

    def _give_back(self, message: Any) -> None:
        give_back(message)
        consumer = self.worker.consumers[message.queue_name].consumer
        try:
            if consumer is not None:
                consumer.ack(message)  # In place of the removal it goes back.
        except Exception as error:
            logger.warning("A message comes back only when this process ends.", extra={"error": type(error).__name__})

    # -- the way ------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        logger.info("Draining: no task is started any more.", extra={"running": len(self.process.runs)})
        self.process.tell()
        self._wait_until_idle(self.deadline or 0.0)
        try:
            handed = self._hand_over()
        except Exception:
            logger.exception("Not everything could be handed over.")
            handed = False
        self._wait_until_idle(time.monotonic() + MOMENT)
        self.process.state = "drained"
        self.drained.set()
        if not self._ends.is_set():
            self.process.tell()
            self._ends.wait()
        self.clean = self.process.leave() and handed
        self.over.set()

    def _wait_until_idle(self, deadline: float) -> None:
        while len(self.process.runs) and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(LOOK, left))

    def _hand_over(self) -> bool:
        """Give what still runs to other workers. Waits for the store while that is away."""
        self.process.patiently(self.process.deferred.flush_all)
        running = [run for run in self.process.runs.running() if run.phase is Phase.RUNNING]
        if running:
            logger.warning("Time is up: handing over what still runs.", extra={"tasks": len(running)})
        for run in running:
            self.process.hand_over(run, "shutdown")
        return True
