"""How soon a killed worker's task runs again: two workers, one of which is killed while it runs a task."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from dramatiq import Message

from relier.errors import RelierError
from relier_cli.bench.ground import Ground, broker_of
from relier_cli.demo.environment import command
from relier_cli.demo.fleet import Process

#: Longest wait (s) for workers that start, and for Relier's recovery.
LONGEST = 60.0
LOOK_EVERY = 0.005
WORKERS = 2
#: A worker that has beaten so often has looked at the others, and they at it.
SETTLED = 2
ACTOR = "bench_wait"
MODULES = {"plain": ["relier_cli.bench.sleeper"], "relier": ["relier.workers", "relier_cli.bench.sleeper"]}


class Pair:
    """Two workers of a kind, plain Dramatiq's or Relier's; whichever was killed is replaced.

    Parameters:
      ground: where they run.
      kind: plain or relier.
      check: raises when the user wants it to end.
    """

    def __init__(self, ground: Ground, kind: str, check: Callable[[], None]) -> None:
        self._ground = ground
        self._kind = kind
        self._check = check
        self._broker = broker_of(kind, ground.settings)
        self._count = 0
        self._processes: list[Process] = []
        ground.on_leaving(self.close)
        for _ in range(WORKERS):
            self._start()

    def _start(self) -> None:
        arguments = command("dramatiq", "-p", "1", "-t", "1", "--worker-fork-timeout", "1000", *MODULES[self._kind])
        log = self._ground.folder / f"{self._kind}.log"
        self._processes.append(Process(arguments, self._ground.environment(self._kind), self._ground.folder, log))

    def lose_one(self) -> Loss:
        """Kill a worker that runs a task; returns what is to be waited for."""
        self._until(self._all_there, "the workers")
        self._count += 1
        loss = Loss(self._ground.marks / f"{self._kind}-{self._count}")
        message = Message[None](queue_name="default", actor_name=ACTOR, args=(loss.path.name,), kwargs={}, options={})
        self._broker.declare_queue("default")
        self._broker.enqueue(message)
        self._until(loss.runs, "the first run")
        pid, _ = loss.runs()[0]
        loss.killed_at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        return loss

    def recover(self, loss: Loss) -> float:
        """Return after how many seconds the task of a killed worker ran again, and replace that worker."""
        self._until(lambda: len(loss.runs()) > 1, "the second run")
        loss.end()
        self._until(lambda: any(process.ended for process in self._processes), "the end of the killed one")
        self._processes = [process for process in self._processes if not process.ended]
        self._start()
        return loss.after() or 0.0

    def _all_there(self) -> bool:
        """Whether both workers have settled in."""
        if self._kind == "plain":  # Nobody knows who is there; whoever is first gets the task.
            return True
        fleet = self._ground.store.fleet
        present, beats = fleet.present(sorted(fleet.workers())), fleet.observe().beats
        return sum(there and beats.get(worker, 0) >= SETTLED for worker, there in present.items()) >= WORKERS

    def _until(self, condition: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + LONGEST
        while not condition():
            self._check()
            if time.monotonic() > deadline or all(process.ended for process in self._processes):
                log = (self._ground.folder / f"{self._kind}.log").read_text("utf-8", "replace").splitlines()[-5:]
                raise RelierError(
                    "\n".join([f"The benchmark waited in vain for {what} ({self._kind}). Its log:", *log])
                )
            time.sleep(LOOK_EVERY)

    def close(self) -> None:
        """End the workers at once: what they have is nobody's."""
        for process in self._processes:
            process.signal_group(signal.SIGKILL)
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.process.wait(5)
        self._broker.close()


class Loss:
    """One task whose worker was killed.

    Parameters:
      path: has a line for each of its runs: process and moment.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.killed_at = 0.0

    def runs(self) -> list[tuple[int, float]]:
        """Return process id and monotonic time of each run."""
        if not self.path.exists():
            return []
        lines = [line.split() for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [(int(pid), float(at)) for pid, at in lines]

    def after(self) -> float | None:
        """Return how many seconds after the kill the task ran again; None: it has not yet."""
        again = [at for _, at in self.runs() if at > self.killed_at]
        return again[0] - self.killed_at if again else None

    def end(self) -> None:
        """Let its runs end."""
        self.path.with_name(f"{self.path.name}.end").touch()
