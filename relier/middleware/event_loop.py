"""Dramatiq's event loop for async actors, in a thread that can be given up."""

from __future__ import annotations

from dramatiq import Broker, Worker
from dramatiq import middleware as stock
from dramatiq.asyncio import get_event_loop_thread, set_event_loop_thread

from relier.event_loops import start_loop


class AsyncIO(stock.AsyncIO):
    """Starts and stops the event loop of a worker process.

    A loop that a coroutine blocks keeps neither the other tasks nor the end of the process waiting.
    """

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        start_loop()

    def after_worker_shutdown(self, broker: Broker, worker: Worker) -> None:
        thread = get_event_loop_thread()
        set_event_loop_thread(None)
        if thread is not None:
            thread.stop()  # type: ignore[no-untyped-call]
