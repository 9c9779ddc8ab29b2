"""What a worker does on the word of `rl chaos`. Registered only where RELIER_CHAOS_ENABLED is true."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from dramatiq import Broker, Worker

from relier.chaos import addresses
from relier.chaos.actors import LONGEST, QUEUE, declare
from relier.chaos.cut import Cut
from relier.process import WorkerProcess

logger = logging.getLogger(__name__)

#: The type of the messages on the control channel.
MESSAGE = "chaos"
#: What they may ask for.
KILL, PARTITION = "kill", "partition"
#: How often (s) what was being connected when a partition began is closed.
CLOSE_AGAIN = 0.05


def take_part(broker: Broker, worker: Worker) -> None:
    """Let a worker run the tasks of experiments, whatever queues it was told to consume."""
    declare(broker)
    if worker.consumer_whitelist:
        worker.consumer_whitelist.add(QUEUE)


def obey_chaos(process: WorkerProcess) -> None:
    """Let this process be killed and cut off from outside."""
    process.on(MESSAGE, Obedience(process))


class Obedience:
    """Handles what is asked of one process."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process
        self._partition = threading.Lock()

    def __call__(self, message: dict[str, Any]) -> None:
        if os.getpid() != self._process.pid:
            return
        what, by = message.get("what"), message.get("by")
        if what == KILL:
            logger.warning("Chaos: this process kills itself.", extra={"by": by})
            os.kill(self._process.pid, signal.SIGKILL)
        elif what == PARTITION:
            seconds = max(0.0, min(float(message.get("seconds", 0)), LONGEST))
            where = str(message.get("where", "both"))
            threading.Thread(target=self._part, args=(seconds, where, by), name="relier-chaos", daemon=True).start()
        else:
            logger.warning("Ignored a request for chaos of an unknown kind.", extra={"what": what})

    def _part(self, seconds: float, where: str, by: Any) -> None:
        """Be cut off for so long; one partition at a time."""
        if not self._partition.acquire(blocking=False):
            logger.warning("Ignored a request for a partition: there is one already.")
            return
        try:
            store, broker = addresses.of_store(self._process), addresses.of_broker(self._process)
            parted = (store if where != "broker" else set()) | (broker if where != "store" else set())
            told = {"from": where, "seconds": seconds, "addresses": addresses.shown(parted), "by": by}
            logger.warning("Chaos: this process is cut off.", extra=told)
            with Cut(parted) as cut:
                for _ in _moments(seconds):
                    if parted & store:
                        self._stop_pulse()
                    cut.close()
            logger.warning("Chaos: this process is connected again.")
        finally:
            self._partition.release()

    def _stop_pulse(self) -> None:
        """End the child process that shows that this one lives: it has a connection of its own."""
        pulse = self._process.pulse
        if pulse is not None and pulse.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pulse.pid, signal.SIGKILL)


def _moments(seconds: float) -> Iterator[None]:
    """Yield at once, and again and again until the time is over."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        yield
        time.sleep(min(CLOSE_AGAIN, left))
