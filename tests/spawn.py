"""Start `python -m …` or `python -c …` in a tenth of the time: forked off a process that has imported everything.

Such a process is as real as another: its own arguments, environment, folder, streams, session. Where a fork could not
be the same (another interpreter, a preloaded library, other PYTHON variables), or where this is off, a usual one is
started.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

ROOT = Path(__file__).resolve().parent.parent

#: Set for test runs; benchmarks start every process as a user does.
enabled = False

_LONGEST_PAUSE = 0.02


class Child(Protocol):
    """What a `subprocess.Popen` and a fork have in common."""

    pid: int

    @property
    def returncode(self) -> int | Any: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


def start(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    stdout: IO[Any],
    stderr: IO[Any],
    start_new_session: bool = False,
) -> Child:
    """Start a process, without stdin."""
    if enabled and _can_be_forked(command, env):
        return _server().start(command[1:], env, cwd, (stdout, stderr), start_new_session)
    return subprocess.Popen(
        command,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=start_new_session,
    )


def run(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a process to its end; returns what it printed. Raises `subprocess.TimeoutExpired`."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = start(command, env=env, cwd=cwd, stdout=out, stderr=err)
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())


class Fork:
    """A process that the server forked."""

    def __init__(self, server: _Server, pid: int, command: Sequence[str]) -> None:
        self._server = server
        self._command = command
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask({"reap": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else time.monotonic() + timeout
        pause = 0.001
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(self._command, timeout or 0)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Server:
    """The process that forks, for this one."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._nothing = open(os.devnull, "rb")  # noqa: SIM115
        self.environment = dict(os.environ)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.spawn_server", str(theirs.fileno())],
                env={**self.environment, "PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def start(
        self, command: Sequence[str], env: Mapping[str, str], cwd: Path, streams: Sequence[IO[Any]], session: bool
    ) -> Fork:
        request = {"command": list(command), "env": dict(env), "cwd": str(cwd), "session": session}
        pid = self.ask(request, [self._nothing, *streams])
        return Fork(self, pid, command)

    def ask(self, request: dict[str, Any], streams: Sequence[IO[Any]] = ()) -> Any:
        with self._lock:
            socket.send_fds(self._line, [json.dumps(request).encode()], [stream.fileno() for stream in streams])
            return json.loads(self._line.recv(1 << 16))

    def end(self) -> None:
        self._line.close()
        self._nothing.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:  # Somebody that this process forked has the other end as well.
            self._process.kill()
            self._process.wait()


_started: tuple[int, _Server] | None = None


def _server() -> _Server:
    global _started  # noqa: PLW0603
    if _started is None or _started[0] != os.getpid():
        server = _Server()
        _started = (os.getpid(), server)
        atexit.register(server.end)
    return _started[1]


def _can_be_forked(command: Sequence[str], env: Mapping[str, str]) -> bool:
    if command[0] != sys.executable or command[1] not in ("-m", "-c"):
        return False
    path = [Path(entry) for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if any((folder / "sitecustomize.py").exists() for folder in path):
        return False
    return _start_of_python(env) == _start_of_python(_server().environment)


def _start_of_python(env: Mapping[str, str]) -> dict[str, str]:
    """Return what an interpreter reads when it starts, but for the path of modules."""
    read = ("PYTHON", "LD_", "DYLD_", "LC_", "LANG")
    return {name: value for name, value in env.items() if name.startswith(read) and name != "PYTHONPATH"}
