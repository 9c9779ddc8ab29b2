"""What a worker needs that takes tasks from the recovery queue."""

from __future__ import annotations

import dataclasses
from typing import Any

from dramatiq import Broker, Worker
from dramatiq.broker import MessageProxy
from dramatiq.middleware import Middleware

from relier.envelope import stamp_of
from relier.queues import RECOVERY_QUEUE


class RecoveryPool(Middleware):
    """Declares the recovery queue in a worker that is told to consume it (`-Q re-queue`), and only there.

    While a task from it runs, its message names the task's own queue: results and whatever else depends on the queue
    stay where they belong. The acknowledgement goes to the recovery queue.
    """

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        if RECOVERY_QUEUE in (worker.consumer_whitelist or ()):
            broker.declare_queue(RECOVERY_QUEUE)

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        if message.queue_name == RECOVERY_QUEUE and (own := stamp_of(message).queue):
            _rename(message, own)
            message.__dict__["relier_carried_by"] = RECOVERY_QUEUE

    def after_process_message(self, broker: Broker, message: MessageProxy, **outcome: Any) -> None:
        carried_by = message.__dict__.pop("relier_carried_by", None)
        if carried_by is not None:
            _rename(message, carried_by)

    def after_skip_message(self, broker: Broker, message: MessageProxy) -> None:
        self.after_process_message(broker, message)


def _rename(message: MessageProxy, queue: str) -> None:
    message.__dict__["_message"] = dataclasses.replace(message._message, queue_name=queue)
    if "queue_name" in message.__dict__:  # A delivery of our own brokers has it at hand.
        message.__dict__["queue_name"] = queue
