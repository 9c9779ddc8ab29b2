"""Where a copy goes: to its own queue, to the recovery pool, or nowhere yet."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from relier.knowledge import Knowledge
from relier.queues import RECOVERY_QUEUE
from relier.settings import Settings
from relier.store import Due
from relier.store.survey import NO_CONSUMER, UNKNOWN_ACTOR

logger = logging.getLogger(__name__)

#: How often (s) one thing is warned of.
WARNING_INTERVAL = 60.0


@dataclass(frozen=True, slots=True)
class Route:
    """The queue that carries a copy; '' while nobody can run it, and why."""

    queue: str
    held: str = ""


class Routes:
    """Decides the queue of each copy.

    From its first crash on a task goes to the recovery pool, where there is one that can run it; everything else, and
    everything without a pool, goes to its own queue.

    Settings: `RELIER_RECOVERY_QUEUE`.
    """

    def __init__(self, settings: Settings) -> None:
        self._to_pool = settings.recovery_queue == RECOVERY_QUEUE
        self._warned: dict[tuple[str, ...], float] = {}

    def of(self, due: Due, knowledge: Knowledge) -> Route:
        """Return where a copy goes, given what the living workers can run."""
        if due.crashes and self._to_pool:
            if knowledge.can_run(RECOVERY_QUEUE, due.actor):
                return Route(RECOVERY_QUEUE)
            if RECOVERY_QUEUE not in knowledge.queues:
                self._warn(("pool",), "Nobody consumes the recovery queue; its tasks go to their own queues.")
        if knowledge.can_run(due.queue, due.actor):
            return Route(due.queue)
        if due.queue in knowledge.queues and not knowledge.has(due.actor):
            return Route("", UNKNOWN_ACTOR)
        return Route("", NO_CONSUMER)

    def lead_anywhere(self, queue: str, actor: str, knowledge: Knowledge, news: bool) -> bool:
        """Whether tasks of this queue and actor that are parked may be routed now.

        The pool takes only what has crashed, so it is asked only once about each fleet: `news`.
        """
        return knowledge.can_run(queue, actor) or (news and self._to_pool and knowledge.can_run(RECOVERY_QUEUE, actor))

    def warn_of(self, held: list[tuple[Due, str]]) -> None:
        """Warn of tasks that nobody can run, once an interval for each queue and actor."""
        for due, reason in held:
            if reason == NO_CONSUMER:
                text = "Nobody consumes a queue with the actors of its tasks; they wait."
                self._warn((reason, due.queue), text, queue=due.queue, actor=due.actor)
            else:
                text = "No worker has the actor of a task; it waits for one that has."
                self._warn((reason, due.actor), text, queue=due.queue, actor=due.actor)

    def _warn(self, about: tuple[str, ...], text: str, **extra: Any) -> None:
        now = time.monotonic()
        if now - self._warned.get(about, -WARNING_INTERVAL) >= WARNING_INTERVAL:
            self._warned[about] = now
            logger.warning(text, extra=extra)
