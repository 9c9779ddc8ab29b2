"""Tasks of an experiment's own that stay on the worker that shall suffer."""

from __future__ import annotations

import secrets
import time
from functools import cached_property
from types import TracebackType
from typing import Any, Self

from dramatiq import Broker, Message

from relier import TaskReceipt
from relier.brokers.adapters import adapter_of
from relier.cancelling import cancel_task
from relier.chaos.actors import LONGEST, PROBE, QUEUE
from relier.chaos.holding import Holding
from relier.errors import RelierError
from relier.store.connection import UNAVAILABLE
from relier.store.survey import Summary
from relier_cli.chaos.stage import Stage
from relier_cli.opening import who

#: Longest wait (s) until the chosen worker runs something.
BUSY_WITHIN = 30.0
#: Most probes that are pushed, and how long (s) after some the next are: another worker may have fetched them all.
MOST, AGAIN_AFTER = 1000, 0.5
#: How long (s) probes get to end by themselves; what is left is cancelled.
END_WITHIN = 1.0
#: How often (s) the store is looked at.
LOOK = 0.02


class Probes:
    """Probes of one experiment: they end when the block does, however it ends.

    Each occupies a thread until the worker that shall suffer has one, then they stay only there.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._token = secrets.token_hex(8)
        self.holding = Holding(stage.store, self._token)
        #: Task id to shard.
        self.places: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.holding.hold()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.holding.release()
            end = time.monotonic() + END_WITHIN
            while self._unended() and time.monotonic() < end:
                time.sleep(LOOK)
            for task_id in self._unended():
                cancel_task(self._stage.store, task_id, who(), self.places[task_id])
        except UNAVAILABLE:
            if error is None:
                raise

    def occupy(self, worker: str, willing: dict[str, dict[str, Any]]) -> list[Summary]:
        """Push probes until the worker runs one, or is full, and keep them there alone. Returns what it runs."""
        threads = sum(int(told.get("threads") or 1) for told in willing.values())
        end, pushed = time.monotonic() + BUSY_WITHIN, 0.0
        self.holding.hold()
        while not self._has_its_share(worker, int(willing.get(worker, {}).get("threads") or 1)):
            if time.monotonic() > end:
                raise RelierError(
                    f"Worker {worker} ran nothing within {BUSY_WITHIN:g} s: rl queue list, rl tasks list."
                )
            if time.monotonic() - pushed > AGAIN_AFTER and len(self.places) < MOST:
                self._push(threads)
                pushed = time.monotonic()
            self.holding.keep()
            time.sleep(LOOK)
        self.holding.hold(worker)
        return self._alone_on(worker)

    def fill(self, willing: dict[str, dict[str, Any]]) -> None:
        """Push a probe for each thread, and wait until some run."""
        self._push(min(MOST, sum(int(told.get("threads") or 1) for told in willing.values())))
        end = time.monotonic() + BUSY_WITHIN
        while not any(self.running_on(worker) for worker in willing):
            if time.monotonic() > end:
                raise RelierError(f"No worker ran anything within {BUSY_WITHIN:g} s: rl queue list, rl tasks list.")
            self.holding.keep()
            time.sleep(LOOK)

    @cached_property
    def _broker(self) -> Broker:
        return self._stage.broker()

    def _push(self, number: int) -> None:
        messages = [
            Message[Any](queue_name=QUEUE, actor_name=PROBE, args=(self._token, LONGEST), kwargs={}, options={})
            for _ in range(number)
        ]
        sent = adapter_of(self._broker).enqueue_many(messages)
        receipts = [TaskReceipt.of(message, self._broker) for message in sent]
        self.places.update((receipt.id, receipt.shard or 0) for receipt in receipts)

    def _has_its_share(self, worker: str, threads: int) -> bool:
        """Whether a worker runs a probe, or as much of others as it can."""
        running = self.running_on(worker)
        return len(running) >= threads or any(task.task_id in self.places for task in running)

    def _alone_on(self, worker: str) -> list[Summary]:
        """Wait until no probe is left elsewhere, so that others are idle."""
        end = time.monotonic() + BUSY_WITHIN
        while time.monotonic() < end:
            here = {task.task_id for task in self.running_on(worker)}
            if not here or self._unended() <= here:
                break
            self.holding.keep()
            time.sleep(LOOK)
        return self.running_on(worker)

    def running_on(self, worker: str) -> list[Summary]:
        """Return what a worker runs, probes and others."""
        survey = self._stage.survey
        owned = survey.some(survey.owned_by([worker])).values()
        return [task for task in owned if task.state == "r" and task.owner == worker]

    def _unended(self) -> set[str]:
        """Return the probes that have not ended: of those that have and are forgotten nothing is known."""
        known = self._stage.survey.some(self.places.items())
        return {task_id for task_id, task in known.items() if not task.ended}
