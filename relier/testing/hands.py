"""What Dramatiq's worker thread works with, where there is no worker around it."""

from __future__ import annotations

from typing import Any

from relier.brokers.memory import MemoryBroker
from relier.lifecycle import run_of


class Hands:
    """What Dramatiq's worker thread takes for the consumer of a message: it gets each copy back."""

    def __init__(self, broker: MemoryBroker, failures: list[BaseException]) -> None:
        self._broker = broker
        self._failures = failures
        #: How many copies the store let run.
        self.runs = 0

    def post_process_message(self, message: Any) -> None:
        run, error = run_of(message), message._exception
        if error is not None and run is not None and run.final_failure:
            self._failures.append(error)
        self.runs += "relier_run" in message.__dict__  # None: its worker was killed in it.
        self._broker.finish(message)


class NoQueue:
    """Dramatiq's worker thread says when a message of its queue is done; here nobody asks."""

    def task_done(self) -> None:
        pass
