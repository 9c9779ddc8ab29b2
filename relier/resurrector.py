"""The resurrector: a Dramatiq actor on a queue of its own that sweeps the fleet, one message a loop of bounded length.

Only its own process declares and consumes that queue, with one thread that does nothing else: busy workers cannot
starve it. Its messages are disposable ticks: exempt from claim, admission and retry, and one is outstanding at most.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import signal
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq import Broker, Worker

from relier.brokers.adapters import adapter_of
from relier.ending import END_WITHIN, KILLED, SAME_WISH
from relier.errors import RelierStartupError
from relier.fleet_checks import SAME_BROKER, misplacement
from relier.installation import install, installation_of
from relier.queues import RESURRECTOR_QUEUE
from relier.settings import Settings
from relier.sweeper import Sweeper, sweep_until

if TYPE_CHECKING:
    from relier.exporter import Exporter

logger = logging.getLogger(__name__)

#: Length (s) of the loop that one tick starts.
LOOP = 10.0
#: A tick that did not come back after this time (s) was lost with the broker's data; another one is sent.
TICK_LOST_AFTER = 3 * LOOP


class Resurrector:
    """One resurrector process.

    Parameters:
      broker: with Relier installed; it carries the ticks and what is published.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.installation = installation_of(broker)
        self.installation.role = "resurrector"
        self.queue = f"{RESURRECTOR_QUEUE}.{secrets.token_hex(4)}"
        self._stopped = threading.Event()
        self._ticked = time.monotonic()
        self._sweeper: Sweeper | None = None
        self._tick: Any = dramatiq.actor(actor_name=self.queue, queue_name=self.queue, broker=broker)(self._loop)
        self._worker = Worker(broker, queues={self.queue}, worker_threads=1)

    def run(self) -> None:
        """Sweep until `stop` is called. Raises `RelierStartupError` when the workers turn out to use another broker."""
        self._worker.start()
        self._send_tick()
        misplaced = ""
        while not misplaced and not self._stopped.wait(1.0):
            if time.monotonic() - self._ticked > TICK_LOST_AFTER:
                logger.warning("The resurrector's tick was lost; sending another.")
                self._send_tick()
            misplaced = self._sweeper.misplaced if self._sweeper is not None else ""
        self._stopped.set()
        self._worker.stop()
        self._leave()
        if misplaced:
            raise RelierStartupError(f"{misplaced} Refusing to go on. {SAME_BROKER}")

    def stop(self) -> None:
        """End after the current sweep."""
        self._stopped.set()

    def _loop(self) -> None:
        process = self.installation.process
        if process is None:
            return
        if self._sweeper is None:
            self._sweeper = Sweeper(process, dedicated=True)
        self._ticked = time.monotonic()
        sweep_until(self._sweeper, process.settings.resurrection_check_interval, self._stopped, LOOP)
        if not self._stopped.is_set():
            self._send_tick()

    def _send_tick(self) -> None:
        """Send the next tick; while the broker is away `run` tries again."""
        try:
            self._tick.send()
            self._ticked = time.monotonic()
        except Exception as error:
            self._ticked = time.monotonic() - TICK_LOST_AFTER
            logger.warning("The resurrector's tick cannot be sent.", extra={"error": type(error).__name__})

    def _leave(self) -> None:
        try:
            adapter_of(self.broker).drop_queue(self.queue)
        except Exception as error:
            logger.debug("The resurrector's queue stays.", extra={"queue": self.queue, "error": type(error).__name__})


def run_resurrector(broker: Broker, settings: Settings) -> None:
    """Run a resurrector in this process until SIGTERM, SIGINT or SIGHUP. It then gives its leases back, and ends soon.

    Raises `RelierStartupError` when the workers use another broker.
    """
    resurrector = Resurrector(install(broker, settings))
    if misplaced := misplacement(resurrector.installation.store, adapter_of(broker).place()):
        raise RelierStartupError(f"{misplaced} Refusing to start. {SAME_BROKER}")

    ending = Ending(resurrector, settings.graceful_shutdown_timeout)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ending.handle)
    exporter = _metrics(resurrector, settings)
    resurrector.run()
    if exporter is not None:
        exporter.stop()
    ending.done()


def _metrics(resurrector: Resurrector, settings: Settings) -> Exporter | None:
    """Serve metrics beside the sweep, where that is wished for."""
    if settings.metrics_addr is None:
        return None
    from relier.exporter import serve_beside

    return serve_beside(resurrector.installation.store, resurrector.broker, settings)


class Ending:
    """Ends a resurrector in order, within the bound that workers have; at once at a second signal.

    It gives its leases back after the sweep that it is in. What it was about to do stays visible in the store.

    Parameters:
      patience: `RELIER_GRACEFUL_SHUTDOWN_TIMEOUT`.
    """

    def __init__(self, resurrector: Resurrector, patience: float) -> None:
        self._resurrector = resurrector
        self._latest = patience + END_WITHIN
        self._asked = 0.0
        self._done = threading.Event()
        #: May be put to in a signal handler, which must not touch what the main thread may hold.
        self._wishes: queue.SimpleQueue[None] = queue.SimpleQueue()
        threading.Thread(target=self._watch, name="relier-ending", daemon=True).start()

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked and time.monotonic() - self._asked > SAME_WISH:
            os._exit(KILLED)
        self._asked = self._asked or time.monotonic()
        self._wishes.put(None)

    def done(self) -> None:
        """Note that it has ended in order."""
        self._done.set()

    def _watch(self) -> None:
        self._wishes.get()
        self._resurrector.stop()
        if not self._done.wait(self._latest):
            logger.warning("Ending without a word: store or broker do not answer. The leases are taken over.")
            os._exit(KILLED)
