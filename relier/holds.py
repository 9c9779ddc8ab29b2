"""Holding: the tasks of a queue that an operator paused, or of an actor that is parked, wait until somebody lifts that.

A hold is in the store, so it survives every process. Each worker learns of it with its next beat, and at once where the
control channels work. Nothing is lost: what is in the broker stays there, what comes due stays in the store.
"""

from __future__ import annotations

from relier import failpoints
from relier.store import Store
from relier.store.holds import Hold

#: The control message after which a process asks at once what is held.
CHANGED = "holds"


def pause_queue(store: Store, queue: str, by: str, reason: str = "") -> tuple[bool, Hold]:
    """Let no worker start another task of a queue, within 2 seconds; what runs goes on.

    Returns whether this call did it (else it was paused already), and the hold that is there now.
    """
    return _hold(store, Hold("queue", queue, 0.0, by, reason))


def resume_queue(store: Store, queue: str) -> tuple[bool, Hold | None]:
    """Let a queue's tasks go on; returns whether this call did it, and the hold that was there."""
    return _lift(store, Hold("queue", queue, 0.0), only=None)


def park_actor(
    store: Store, actor: str, by: str, reason: str = "", *, fingerprint: str = "", code: str = ""
) -> tuple[bool, Hold]:
    """Let no worker start another task of an actor: too many of them failed in one way.

    Parameters:
      by: who noticed.
      fingerprint: what they have in common.
      code: names the code that failed: workers with another one are not concerned. One that is parked for some codes
        is parked for this one as well then. Without: no worker may.
    """
    return _hold(store, Hold("actor", actor, 0.0, by, reason, fingerprint, (code,) if code else ()))


def lift_actor(store: Store, actor: str, only: Hold | None = None) -> tuple[bool, Hold | None]:
    """Let a parked actor's tasks go on; with `only`, unless it was parked anew since."""
    return _lift(store, Hold("actor", actor, 0.0), only)


def _hold(store: Store, hold: Hold) -> tuple[bool, Hold]:
    failpoints.hit("before-hold")
    done, found = store.fleet.hold(hold)
    failpoints.hit("held")
    if done:
        store.fleet.tell_all({"type": CHANGED})
    return done, found


def _lift(store: Store, hold: Hold, only: Hold | None) -> tuple[bool, Hold | None]:
    failpoints.hit("before-lift")
    done, found = store.fleet.lift(hold.kind, hold.name, only)
    failpoints.hit("lifted")
    if done:
        store.fleet.tell_all({"type": CHANGED})
    return done, found
