"""A store with a task in each state, and what the words in `tests.cli.usage` stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests import processes
from tests.cli.conftest import CommandLine, Tasks


@dataclass
class Populated:
    """Runs commands on a populated store.

    Parameters:
      rl: in whose folder there are some actors.
      tasks: brings tasks into each state.
    """

    rl: CommandLine
    tasks: Tasks
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        processes.actors(self.rl.folder)
        self.names = {
            "dead": self.tasks.dead(1).task_id,
            "refused": self.tasks.refused("it was changed on its way", 2).task_id,
            "scheduled": self.tasks.scheduled().task_id,
            "running": self.tasks.running(3)[0].task_id,
            "discarded": self.tasks.discarded().task_id,
            "new_file": "exported",
        }
        self.tasks.dead(4, reason="KeyError", error=KeyError("name"))
        self.tasks.scheduled(0.0)
        self.tasks.completed()

    def line(self, words: Sequence[str]) -> list[str]:
        """Return a command line with the names of what there is; what takes a command to make is made for it."""
        if "{letters_file}" in words:
            (self.rl.folder / "letters").unlink(missing_ok=True)
            self._run("dlq", "export", "--output", "letters")
        if "{paused_queue}" in words:
            self._run("queue", "pause", "low_priority")
        made = {"letters_file": "letters", "paused_queue": "low_priority"}
        return [word.format(**self.names, **made) for word in words]

    def _run(self, *line: str) -> None:
        done = self.rl(*line)
        assert done.returncode == 0, done.stderr
