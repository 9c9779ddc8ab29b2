"""The effect log: what tasks really did, written by each worker, read by the demo. Relier knows nothing of it."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from relier_cli.demo.files import FileFacts


class EffectWriter:
    """Appends one line for each effect of one worker process; a line that was written survives a SIGKILL.

    Parameters:
      path: the log, one for each process.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def booted(self) -> None:
        self._write({"what": "booted", "pid": os.getpid()})

    def started(self, task: str) -> None:
        self._write({"what": "started", "task": task})

    def done(self, task: str, file: str, facts: FileFacts) -> None:
        self._write({"what": "done", "task": task, "file": file, "facts": asdict(facts)})

    def _write(self, line: dict[str, Any]) -> None:
        # The monotonic clock is the machine's, not the process's: the demo compares with its own.
        os.write(self._fd, json.dumps({"at": time.monotonic(), **line}).encode() + b"\n")


@dataclass
class WorkerEffects:
    """What one worker process did so far."""

    path: Path
    pid: int | None = None
    #: Task id -> when its run began (monotonic clock), for each run of this process.
    started: dict[str, float] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    #: Runs of one task beyond the first in the same process.
    repeated: Counter[str] = field(default_factory=Counter)
    _offset: int = 0

    @property
    def running(self) -> set[str]:
        """The tasks that began and did not end."""
        return self.started.keys() - self.done


class Effects:
    """The effects of all worker processes, as the demo sees them."""

    def __init__(self) -> None:
        self.workers: list[WorkerEffects] = []
        #: The measured files; a task that ran twice measured the same file again.
        self.measured: dict[str, FileFacts] = {}
        #: Files that two runs measured differently.
        self.contradictions: set[str] = set()
        self.tasks_done: set[str] = set()

    def watch(self, path: Path) -> WorkerEffects:
        """Read a new process's log from now on."""
        worker = WorkerEffects(path)
        self.workers.append(worker)
        return worker

    def read(self) -> None:
        """Read what was appended. A line that a SIGKILL tore has no end and is left."""
        for worker in self.workers:
            for line in _new_lines(worker):
                self._note(worker, json.loads(line))

    @property
    def runs(self) -> int:
        """How many runs began."""
        return sum(len(worker.started) + worker.repeated.total() for worker in self.workers)

    def runs_of(self, task: str) -> list[tuple[WorkerEffects, float]]:
        """Return where and when a task ran, oldest first."""
        runs = [(worker, worker.started[task]) for worker in self.workers if task in worker.started]
        return sorted(runs, key=lambda run: run[1])

    def _note(self, worker: WorkerEffects, line: dict[str, Any]) -> None:
        if line["what"] == "booted":
            worker.pid = line["pid"]
        elif line["what"] == "started":
            if line["task"] in worker.started:
                worker.repeated[line["task"]] += 1
            worker.started.setdefault(line["task"], line["at"])
        else:
            worker.done.add(line["task"])
            self.tasks_done.add(line["task"])
            self._keep(line["file"], FileFacts(**line["facts"]))

    def _keep(self, name: str, facts: FileFacts) -> None:
        if self.measured.setdefault(name, facts) != facts:
            self.contradictions.add(name)


def _new_lines(worker: WorkerEffects) -> list[bytes]:
    try:
        with worker.path.open("rb") as log:
            log.seek(worker._offset)
            data = log.read()
    except FileNotFoundError:
        return []
    whole, _, _ = data.rpartition(b"\n")
    if not whole:
        return []
    worker._offset += len(whole) + 1
    return whole.split(b"\n")
