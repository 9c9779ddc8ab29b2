"""Start our own commands as a user does: real processes, with nothing of the test's environment but what is given."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests import guard, schemas, spawn
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent

#: Time (s) in which a command must have ended, on a busy machine.
PATIENCE = 150.0

ACTORS = """
import os, signal, time
from relier import rl_actor

@rl_actor
def nothing(*args): pass

@rl_actor(max_retries=0)
def fail(text): raise ValueError(text)

@rl_actor
def sleep(path, seconds):
    with open(path, "a") as file: file.write(f"{os.getpid()}\\n")
    time.sleep(seconds)

@rl_actor(queue="low_priority")
def low(): pass
"""


def environment(**variables: str | None) -> dict[str, str]:
    """Return an environment with our package, and `RELIER_` before each of the variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RELIER_")}
    given = {f"RELIER_{name.upper()}": value for name, value in variables.items() if value is not None}
    return {**kept, "PYTHONPATH": str(ROOT), **given}


def run(folder: Path, *command: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
    """Run `python -m <command>` in a folder until it ends."""
    return spawn.run([sys.executable, "-m", *command], cwd=folder, env=environment(**variables), timeout=PATIENCE)


def rl(folder: Path, *arguments: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
    """Run `rl` until it ends. JSON that it prints must be what its schema says."""
    done = run(folder, "relier_cli.app", *arguments, **variables)
    schemas.check_output(arguments, done.stdout)
    return done


def rl_json(folder: Path, *arguments: str, **variables: str | None) -> Any:
    """Run `rl … --json`; returns what it printed."""
    done = rl(folder, *arguments, "--json", **variables)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


class Started:
    """A process of ours that runs; it is ended with the block. Its output goes to a file."""

    def __init__(self, folder: Path, *command: str, **variables: str | None) -> None:
        self.log = folder / f"log-{command[0].rpartition('.')[2]}-{os.urandom(2).hex()}"
        with self.log.open("wb") as log:
            self.process = spawn.start(
                [sys.executable, "-m", *command],
                cwd=folder,
                env=environment(**variables),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        guard.watch(self.process.pid)

    @property
    def output(self) -> str:
        return self.log.read_text()

    def ended(self, timeout: float = 60.0) -> int:
        """Wait for its end; returns its exit code."""
        wait_until(lambda: self.process.poll() is not None, timeout, f"the end of the process; {self.output[-2000:]}")
        return self.process.wait()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        guard.forget(self.process.pid)


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def actors(folder: Path, text: str = ACTORS, name: str = "some_actors") -> str:
    """Write a module of actors; returns its name."""
    (folder / f"{name}.py").write_text(text)
    return name
