"""The demo's actor. Worker processes import this module; it needs the environment that the demo gives them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from relier import TaskContext, rl_actor
from relier_cli.demo import tie
from relier_cli.demo.effects import EffectWriter
from relier_cli.demo.environment import EFFECTS, FOLDER, LEAST_SECONDS, TIE
from relier_cli.demo.files import measure

tie.follow(os.environ[TIE])
_effects = EffectWriter(Path(os.environ[EFFECTS]))
_folder = Path(os.environ[FOLDER])
_least_seconds = float(os.environ[LEAST_SECONDS])
_effects.booted()


@rl_actor
def measure_file(name: str, ctx: TaskContext) -> None:
    """Measure one file of the standard library; the line in the log is the task's effect."""
    _effects.started(ctx.task_id)
    began = time.monotonic()
    facts = measure(_folder / name)
    time.sleep(max(0.0, _least_seconds - (time.monotonic() - began)))
    _effects.done(ctx.task_id, name, facts)
