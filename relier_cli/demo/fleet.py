"""The demo's processes: two workers that are started again whenever they die, and a resurrector."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from relier.errors import RelierStartupError
from relier_cli.demo.effects import Effects, WorkerEffects
from relier_cli.demo.environment import Surroundings, command

#: Threads of a worker.
THREADS = 4
#: How long (ms) Dramatiq's main process waits for a child that was killed while it booted; its default is 30 s.
BOOT_PATIENCE_MS = "1000"
#: A place whose workers end by themselves this often, without having run anything, is given up.
MAX_FAILED_STARTS = 3
#: Longest wait (s) for processes that were asked to end.
STOP_PATIENCE = 10.0
#: How long (s) a main process of Dramatiq may take to notice that its child was killed, and wait for it.
KILL_PATIENCE = 0.3


class Process:
    """One process of ours, in a process group of its own, so that Ctrl-C in a terminal does not reach it."""

    def __init__(self, arguments: list[str], environment: dict[str, str], folder: Path, log: Path) -> None:
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


class Worker(Process):
    """One worker: Dramatiq's main process, and the child of it that runs tasks.

    Parameters:
      surroundings: of the demo.
      place: which of the demo's workers this is, from 1.
      effects: where its effects are read from.
    """

    def __init__(self, surroundings: Surroundings, place: int, effects: Effects) -> None:
        self.place = place
        number = len(effects.workers) + 1
        self.effects: WorkerEffects = effects.watch(surroundings.folder / f"effects-{number}.jsonl")
        self.killed_at: float | None = None
        super().__init__(
            command(
                "dramatiq", "-p", "1", "-t", str(THREADS), "--worker-fork-timeout", BOOT_PATIENCE_MS, "relier.workers"
            ),
            surroundings.environment(self.effects.path),
            surroundings.folder,
            surroundings.folder / f"worker-{place}.log",
        )

    @property
    def alive(self) -> bool:
        return self.killed_at is None and not self.ended

    @property
    def working(self) -> bool:
        return self.alive and bool(self.effects.running)

    def kill(self) -> None:
        """SIGKILL the process that runs tasks; Dramatiq's main process sees it and ends by itself."""
        assert self.effects.pid is not None
        self.killed_at = time.monotonic()
        os.kill(self.effects.pid, signal.SIGKILL)


class Fleet:
    """All of the demo's processes; `close` ends every one of them.

    Parameters:
      surroundings: of the demo.
      effects: where workers' effects are read from.
      workers: how many.
    """

    def __init__(self, surroundings: Surroundings, effects: Effects, workers: int) -> None:
        self._surroundings = surroundings
        self._effects = effects
        self._size = workers
        self._failed_starts = 0
        self._all: list[Process] = []
        self.workers: list[Worker] = []

    def start(self) -> None:
        self._all.append(
            Process(
                command("relier_cli.demo.sweeping"),
                self._surroundings.environment(),
                self._surroundings.folder,
                self._surroundings.folder / "resurrector.log",
            )
        )
        for place in range(1, self._size + 1):
            self.workers.append(self._start_worker(place))

    def tend(self) -> list[Worker]:
        """Replace workers that died; returns the new ones. Raises `RelierStartupError` when none gets going."""
        new = []
        for i, worker in enumerate(self.workers):
            if worker.alive:
                continue
            if worker.killed_at is None and not worker.effects.started:
                self._failed_starts += 1
                if self._failed_starts >= MAX_FAILED_STARTS:
                    raise RelierStartupError(f"The demo's workers do not start. {self._last_words(worker)}")
            self.workers[i] = self._start_worker(worker.place)
            new.append(self.workers[i])
        return new

    def stop(self) -> None:
        """Ask all to end, without waiting for it."""
        for process in self._all:
            if not process.ended:
                process.process.send_signal(signal.SIGTERM)

    def ended(self) -> bool:
        """Whether all have ended."""
        return all(process.ended for process in self._all)

    def close(self) -> None:
        """End what is still there, by force, and wait until it is gone."""
        for worker in self.workers:
            if worker.alive and worker.effects.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    worker.kill()  # First, so that its parent is there to wait for it.
        deadline = time.monotonic() + KILL_PATIENCE
        while not self.ended():
            if time.monotonic() > deadline:
                for process in self._all:
                    process.signal_group(signal.SIGKILL)
            time.sleep(0.01)

    def _start_worker(self, place: int) -> Worker:
        worker = Worker(self._surroundings, place, self._effects)
        self._all.append(worker)
        return worker

    def _last_words(self, worker: Worker) -> str:
        log = self._surroundings.folder / f"worker-{worker.place}.log"
        lines = log.read_text("utf-8", "replace").splitlines()
        return "Their log ends:\n" + "\n".join(lines[-8:])
