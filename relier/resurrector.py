"""The resurrector: a Dramatiq actor on a queue of its own that sweeps the fleet, one message a loop of bounded length.

Only its own process declares and consumes that queue, with one thread that does nothing else: busy workers cannot
starve it. Its messages are disposable ticks: exempt from claim, admission and retry, and one is outstanding at most.
"""

from __future__ import annotations

import logging
import secrets
import signal
import threading
import time
from types import FrameType
from typing import Any

import dramatiq
from dramatiq import Broker, Worker

from relier.installation import install, installation_of
from relier.queues import RESURRECTOR_QUEUE
from relier.settings import Settings
from relier.sweeper import Sweeper, sweep_until

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
        """Sweep until `stop` is called, from the calling thread's point of view."""
        self._worker.start()
        self._tick.send()
        while not self._stopped.wait(1.0):
            if time.monotonic() - self._ticked > TICK_LOST_AFTER:
                logger.warning("The resurrector's tick was lost; sending another.")
                self._ticked = time.monotonic()
                self._tick.send()
        self._worker.stop()
        self.broker.flush(self.queue)

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
        self._ticked = time.monotonic()
        if not self._stopped.is_set():
            self._tick.send()


def run_resurrector(broker: Broker, settings: Settings) -> None:
    """Run a resurrector in this process until SIGTERM or SIGINT."""
    resurrector = Resurrector(install(broker, settings))

    def end(signum: int, frame: FrameType | None) -> None:
        resurrector.stop()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    resurrector.run()
