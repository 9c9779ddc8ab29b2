"""Which worker shall suffer, and who could take over."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from relier.hosting import Hosting
from relier_cli.chaos.stage import Stage, insist_on_workers, refuse
from relier_cli.draining import find_worker

#: How often (s) the system is looked at.
LOOK = 0.02


@dataclass(frozen=True, slots=True)
class Victim:
    """The worker that shall suffer."""

    worker: str
    told: dict[str, Any]
    #: By which it can be chosen again among the same workers; None when it was named.
    seed: int | None


def choose(stage: Stage, named: str | None, seed: int | None) -> Victim:
    """Return the worker that is named, else one by the seed. Refuses one that does not allow it."""
    fleet = stage.fleet()
    if named is not None:
        worker = find_worker(fleet, named)
        if not fleet[worker].get("chaos"):
            ready = ", ".join(sorted(stage.willing())) or "none"
            refuse(f"Worker {worker} does not allow it: its RELIER_CHAOS_ENABLED is not true. Those that do: {ready}.")
        if fleet[worker].get("role") != "worker":
            refuse(f"{worker} is a {fleet[worker].get('role')}, which runs no tasks: name a worker.")
        return Victim(worker, fleet[worker], None)
    willing = insist_on_workers(stage)
    chosen = random.SystemRandom().randrange(10_000) if seed is None else seed
    ordered = sorted(willing, key=lambda w: (str(willing[w].get("host")), int(willing[w].get("pid") or 0), w))
    found = random.Random(chosen).choice(ordered)
    return Victim(found, willing[found], chosen)


def insist_on_successors(stage: Stage, victim: Victim) -> None:
    """Refuse when nobody could take over: a lone worker that nobody starts again, or one that takes all with it."""
    told = victim.told
    others = {w: t for w, t in stage.willing().items() if w != victim.worker}
    if told.get("hosting") == Hosting.SHARED:  # All processes of its dramatiq end with it.
        others = {w: t for w, t in others.items() if (t.get("host"), t.get("hosting")) != (told.get("host"), "shared")}
    if others or told.get("hosting") == Hosting.SUPERVISED:
        return
    with_it = "; the others of its dramatiq end with it" if told.get("hosting") == Hosting.SHARED else ""
    refuse(
        f"Nobody could take over from {victim.worker}: no other worker allows chaos{with_it}. Start another one with"
        " RELIER_CHAOS_ENABLED=true, or use rl worker start, which starts dead ones again."
    )


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition; returns whether it came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(LOOK)
    return True
