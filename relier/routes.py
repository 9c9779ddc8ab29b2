"""Where a copy goes: to its own queue, to the recovery pool, or nowhere yet."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from relier.knowledge import Knowledge
from relier.queues import RECOVERY_QUEUE
from relier.seldom import Seldom
from relier.settings import Settings
from relier.store import Due, Lot
from relier.store.holds import ACTOR_PARKED, NO_HOLDS, PAUSED, Holds
from relier.store.survey import NEWER_VERSION, NO_CONSUMER, UNKNOWN_ACTOR

logger = logging.getLogger(__name__)

#: Reasons that somebody wants.
HOLDS = frozenset({PAUSED, ACTOR_PARKED})
#: How often (s) one thing is warned of.
WARNING_INTERVAL = 60.0


@dataclass(frozen=True, slots=True)
class Route:
    """The queue that carries a copy; '' while nobody can run it or it is held, and why."""

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
        self._seldom = Seldom(WARNING_INTERVAL)

    def of(self, due: Due, knowledge: Knowledge, holds: Holds = NO_HOLDS) -> Route:
        """Return where a copy goes, given what the living workers can run and what is held."""
        if why := _held(holds, knowledge, due.queue, due.actor, due.payload_version):
            return Route("", why)
        if due.crashes and self._to_pool and RECOVERY_QUEUE not in holds.queues:
            if knowledge.can_run(RECOVERY_QUEUE, due.actor, due.payload_version):
                return Route(RECOVERY_QUEUE)
            if RECOVERY_QUEUE not in knowledge.queues:
                self._warn(("pool",), "Nobody consumes the recovery queue; its tasks go to their own queues.")
        if knowledge.can_run(due.queue, due.actor, due.payload_version):
            return Route(due.queue)
        if due.queue not in knowledge.queues or knowledge.has(due.actor, due.payload_version):
            return Route("", NO_CONSUMER)
        return Route("", NEWER_VERSION if knowledge.has(due.actor) else UNKNOWN_ACTOR)

    def lead_anywhere(self, lot: Lot, knowledge: Knowledge, news: bool, holds: Holds = NO_HOLDS) -> bool:
        """Whether tasks of a lot may be routed now.

        The pool takes only what has crashed, so it is asked only once about each fleet: `news`.
        """
        if _held(holds, knowledge, lot.queue, lot.actor, lot.version):
            return False
        queues = (lot.queue, RECOVERY_QUEUE) if news and self._to_pool else (lot.queue,)
        return any(knowledge.can_run(queue, lot.actor, lot.version) for queue in queues)

    def warn_of(self, held: list[tuple[Due, str]]) -> None:
        """Warn of tasks that nobody can run, once an interval for each queue and actor."""
        for due, reason in held:
            if reason in HOLDS:
                continue  # That is what somebody wants.
            if reason == NO_CONSUMER:
                text = "Nobody consumes a queue with the actors of its tasks; they wait."
                self._warn((reason, due.queue), text, queue=due.queue, actor=due.actor)
            elif reason == NEWER_VERSION:
                text = "A task is newer than every worker's code; it waits for a newer worker."
                about = (reason, due.actor, str(due.payload_version))
                self._warn(about, text, actor=due.actor, version=due.payload_version)
            else:
                text = "No worker has the actor of a task; it waits for one that has."
                self._warn((reason, due.actor), text, queue=due.queue, actor=due.actor)

    def _warn(self, about: tuple[str, ...], text: str, **extra: Any) -> None:
        if self._seldom.may_say(*about):
            logger.warning(text, extra=extra)


def _held(holds: Holds, knowledge: Knowledge, queue: str, actor: str, version: int) -> str:
    """Return why a task is held; an actor may be parked for some codes, while others may run it."""
    return holds.why(queue, actor, knowledge.sources(queue, actor, version) or ("",)) if holds else ""
