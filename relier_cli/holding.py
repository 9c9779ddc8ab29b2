"""What is to be told of tasks that are held: which command lets them go on."""

from __future__ import annotations

import shlex

from relier.store.holds import ACTOR_PARKED, PAUSED


def resuming(reason: str | None, queue: str, actor: str) -> str:
    """Return the command that lifts the hold for which a task waits; '' when it waits for something else."""
    if reason == PAUSED:
        return f"rl queue resume {shlex.quote(queue)}"
    return f"rl queue resume --actor {shlex.quote(actor)}" if reason == ACTOR_PARKED else ""
