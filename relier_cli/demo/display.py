"""What the demo shows while it runs: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from relier_cli.demo.effects import Effects
from relier_cli.demo.fleet import Worker
from relier_cli.demo.killing import Death

#: Pictures a second.
RATE = 10
#: Plain lines come every so many parts of the work.
PARTS = 10


@dataclass(frozen=True)
class Scene:
    """What there is to see at a moment."""

    doing: str
    done: int
    total: int
    workers: list[Worker]


class Display:
    """Plain lines; also what `LiveDisplay` prints above its picture.

    Parameters:
      console: where to.
      effects: what tells recoveries.
    """

    def __init__(self, console: Console, effects: Effects) -> None:
        self.console = console
        self.effects = effects
        self._began = time.monotonic()
        self._told = ""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the display for the length of the block."""
        yield

    def say(self, text: str, style: str = "") -> None:
        """Print a line with the time since the start."""
        seconds = time.monotonic() - self._began
        self.console.print(Text(f"{seconds:6.2f} s  {text}", style=style), soft_wrap=True)

    def update(self, scene: Scene) -> None:
        """Show a new moment."""
        part = scene.done * PARTS // max(1, scene.total)
        told = f"{scene.doing}{part}"
        if told != self._told and part:
            self.say(f"{scene.doing}: {scene.done} of {scene.total}")
        self._told = told

    def killed(self, death: Death) -> None:
        worker = death.worker
        self.say(
            f"SIGKILL {death.number}: worker {worker.place} (pid {worker.effects.pid}), after {death.after} tasks",
            "bold red",
        )

    def recovered(self, death: Death) -> None:
        self.say(f"Recovered {death.number}: {describe_recovery(death, self.effects)}", "green")


class LiveDisplay(Display):
    """A picture of progress and workers; deaths and recoveries scroll above it."""

    def __init__(self, console: Console, effects: Effects) -> None:
        super().__init__(console, effects)
        # Without a thread of its own: this process forks.
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._drawn = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        with self._live:
            yield

    def update(self, scene: Scene) -> None:
        now = time.monotonic()
        if now - self._drawn >= 1 / RATE:
            self._drawn = now
            self._live.update(Group(*self._picture(scene)), refresh=True)

    def _picture(self, scene: Scene) -> Iterator[Table]:
        bar = Table.grid(padding=(0, 1))
        seconds = time.monotonic() - self._began
        counted = f"{scene.done:>5} of {scene.total}  {seconds:4.1f} s"
        bar.add_row(scene.doing, ProgressBar(total=scene.total, completed=scene.done, width=40), counted)
        yield bar
        if scene.workers:
            workers = Table.grid(padding=(0, 2))
            for worker in scene.workers:
                workers.add_row(f"  worker {worker.place}", *_state(worker))
            yield workers


def _state(worker: Worker) -> tuple[str, str]:
    pid = f"pid {worker.effects.pid}" if worker.effects.pid else ""
    if worker.working:
        running = len(worker.effects.running)
        return pid, f"{running} running, {len(worker.effects.done)} done"
    return pid, "idle" if worker.effects.started else "starting"


def describe_recovery(death: Death, effects: Effects) -> str:
    """Say how long the tasks of a dead worker waited."""
    times = death.recoveries(effects)
    if not times:
        return "no task was running"
    tasks = "1 task" if len(times) == 1 else f"{len(times)} tasks"
    last = f", the last after {times[-1]:.2f} s" if len(times) > 1 else ""
    return f"its {tasks} run again, the first after {times[0]:.2f} s{last}"
