"""The heartbeat of one process: it beats, sends what was settled, and compares the store's view with its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from relier.endurance import endless
from relier.errors import StoreUnavailableError
from relier.runs import Phase, Run
from relier.store.connection import UNAVAILABLE

if TYPE_CHECKING:
    from relier.process import WorkerProcess

logger = logging.getLogger(__name__)

_AWAY: tuple[type[Exception], ...] = (*UNAVAILABLE, StoreUnavailableError)

#: Longest time (s) between two beats.
BEAT_INTERVAL = 1.0
#: How often (s) settlements that found no other call to ride on are sent.
SETTLE_INTERVAL = 0.2
#: How often (s) the store's view of this process is compared with its own.
RECONCILE_INTERVAL = 10.0


class Heartbeat:
    """The thread that shows that a process lives.

    Parameters:
      process: the one that lives.
      stopped: set when it is to end.
    """

    def __init__(self, process: WorkerProcess, stopped: threading.Event) -> None:
        self._process = process
        self._stopped = stopped
        #: Longest time (s) between two beats.
        self.every = min(BEAT_INTERVAL, process.settings.heartbeat_ttl / 4)
        #: Called with each beat.
        self.chores: list[Callable[[], None]] = []
        #: When the store was last heard (monotonic), and whether this worker has stepped back since.
        self._heard = time.monotonic()
        self._withdrawn = False
        #: Set when the next beat is to come soon: its answer has news.
        self._in_a_hurry = False
        beat = endless(self._keep_beating, stopped)
        self._thread = threading.Thread(target=beat, name="relier-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._heard = time.monotonic()
        self._thread.start()

    def join(self) -> None:
        """Wait for its end, once `stopped` is set: 5 s at most."""
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def hurry(self) -> None:
        """Let the next beat come soon: its answer has news."""
        self._in_a_hurry = True

    def settle(self) -> None:
        """Send what ended and found no other call to ride on."""
        process = self._process
        settled = process.runs.unsettled()
        for i in range(0, len(settled), 2000):
            batch = settled[i : i + 2000]
            process.store.tasks.settle(batch)
            process.runs.sent(batch)

    def _keep_beating(self) -> None:
        next_beat = next_reconcile = 0.0
        session = -1
        while not self._stopped.wait(min(SETTLE_INTERVAL, self.every)):
            try:
                self._process.deferred.flush_all(only_old=True)
                self.settle()
                now = time.monotonic()
                if now < next_beat and not self._in_a_hurry:
                    continue
                self._in_a_hurry = False
                next_beat = now + self.every
                for chore in self.chores:
                    chore()
                heard = self._beat()
                self._in_touch()
                if heard and (now >= next_reconcile or session != self._process.control.session):
                    next_reconcile, session = now + RECONCILE_INTERVAL, self._process.control.session
                    self._reconcile()
            except _AWAY as error:
                logger.debug("A beat failed.", extra={"error": type(error).__name__})
                next_beat = next_reconcile = 0.0  # At once when the store is back: others look for this worker then.
                self._out_of_touch()
            except Exception:
                logger.exception("The heartbeat failed; it goes on.")

    def _beat(self) -> bool:
        """Beat once; returns False when the answer makes a comparison pointless."""
        process, identity = self._process, self._process.identity
        answer = process.gate.beat(identity, process.runs.busy())
        if answer == "gone":
            process.refence(identity)
            return False
        if answer == "unknown" or process.registration.is_outdated:
            process.register()
        if process.pulse is not None:
            process.pulse.tend(identity)
        return True

    # -- while the store cannot be heard ------------------------------------------------------------------------

    def _in_touch(self) -> None:
        self._heard = time.monotonic()
        if self._withdrawn:
            self._withdrawn = False
            if not self._process.state:
                self._process.adapter.resume()

    def _out_of_touch(self) -> None:
        """Leave what was not started to others, when they may long have declared this worker dead."""
        too_long = time.monotonic() - self._heard > self._process.settings.heartbeat_ttl
        if too_long and not self._withdrawn and self._process.adapter.withdraw():
            logger.warning("The store is out of reach: what was not started goes back to its queues.")
            self._withdrawn = True

    # -- the store's view and ours ------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        process = self._process
        number = process.store.tasks.begin_snapshot()
        found = process.store.tasks.reconcile(process.identity, number, process.runs.snapshot())
        if found.released:
            logger.warning("Released runs that this worker does not run.", extra={"count": len(found.released)})
        for task_id in found.lost:
            for run in process.runs.find(task_id):
                if run.phase is Phase.RUNNING and run.worker_id == process.identity:
                    run.lose()
        for task_id in found.missing:
            for run in process.runs.find(task_id):
                self._adopt(run)
        for task_id in found.asked:  # The request may have been lost. Whoever heard it cleans up, perhaps.
            for run in process.runs.find(task_id):
                if not run.stops:
                    run.end()

    def _adopt(self, run: Run) -> None:
        with run.lock:
            if run.phase is Phase.RUNNING and run.worker_id == self._process.identity:
                adopted = self._process.store.tasks.adopt(run.worker_id, run.sending, run.fence)
                logger.warning("The store lacked a run; given back.", extra={"task": run.task_id, "adopted": adopted})
