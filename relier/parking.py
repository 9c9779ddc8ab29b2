"""Parking: an actor of which many different tasks failed alike, and none succeeded meanwhile, is not run any further.

Its other tasks wait in the store, and say so, until an operator resumes it or workers with other code come. Off unless
`RELIER_PARK_AFTER` or the actor's `park_after` says how many tasks are many.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dramatiq import Broker

from relier.application import code_digest
from relier.holds import lift_actor, park_actor
from relier.settings import Settings
from relier.store.alike import count_alike, forget_alike, last_success
from relier.store.connection import UNAVAILABLE

if TYPE_CHECKING:
    from relier.knowledge import FleetView
    from relier.process import WorkerProcess
    from relier.runs import Run
    from relier.store import Store

logger = logging.getLogger(__name__)


def park_after(options: Mapping[str, Any], settings: Settings) -> int:
    """Return how many tasks of an actor have to fail alike until it is parked; 0: it never is."""
    wanted = options.get("park_after")
    return settings.park_after if wanted is None else int(wanted)


def code_of(broker: Broker, settings: Settings) -> str:
    """Return a name for the code that this process has loaded; '' when none of its actors is ever parked."""
    if not any(park_after(actor.options, settings) for actor in broker.actors.values()):
        return ""
    return code_digest({str(getattr(actor.fn, "__module__", "")).partition(".")[0] for actor in broker.actors.values()})


def park_if_many(process: WorkerProcess, options: Mapping[str, Any], run: Run, fingerprint: str) -> None:
    """Count a failure, and park the actor when it is one too many.

    A failure that is not counted, because this process died or the store was away, is made up for by the next task.
    """
    many = park_after(options, process.settings)
    if not many or not fingerprint:
        return
    try:
        _park_if_many(process, run, fingerprint, many)
    except UNAVAILABLE as error:
        logger.debug("A failure was not counted.", extra={"error": type(error).__name__})
    except Exception:  # The task's own failure is recorded; nothing of it may be lost here.
        logger.exception("A failure could not be counted toward parking its actor.")


def _park_if_many(process: WorkerProcess, run: Run, fingerprint: str, many: int) -> None:
    store, actor, code = process.store, run.actor_name, process.code
    if count_alike(store, fingerprint, code, run.task_id) < many:
        return
    success = last_success(store, actor, code)
    if success and count_alike(store, fingerprint, code, run.task_id, success) < many:
        return
    reason = f"{many} of its tasks failed alike, and none succeeded meanwhile"
    is_new, _ = park_actor(store, actor, process.identity, reason, fingerprint=fingerprint, code=code)
    forget_alike(store, fingerprint, code)
    process.gate.look()  # Others are told; this process knows before it begins with the next task.
    if is_new:
        logger.error(
            "An actor is parked: too many of its tasks failed alike.",
            extra={"actor": actor, "fingerprint": fingerprint, "tasks": many, "code": code},
        )


def lift_what_is_over(store: Store, fleet: FleetView) -> None:
    """Forget that actors are parked for code that no worker has any more, once some have other code."""
    for hold in fleet.holds.actors.values():
        living = fleet.knowledge.all_sources(hold.name)
        if living and not any(map(hold.binds, living)) and lift_actor(store, hold.name, only=hold)[0]:
            logger.info("An actor is no longer parked: the code that failed is gone.", extra={"actor": hold.name})
