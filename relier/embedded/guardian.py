"""Own one embedded server for as long as any process uses it.

Started by path (``python -I -S guardian.py STATE_DIR SOCKET BINARY``), never with ``-m``: it must import
nothing but the standard library, to start at once and stay small.

Three locks (flock) in the state folder carry the protocol; the kernel drops them however a process ends:

- ``users.lock``: shared, one hold per using process. The guardian ends only after it got it exclusively, and
  keeps it so until the server is gone; a user that arrives meanwhile waits, then starts the next guardian.
- ``guardian.lock``: exclusive, held by the one guardian. Users probe it to see whether there is one.
- ``server.lock``: inherited by the server, so that it stays taken as long as an orphaned server lives.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

USERS_LOCK = "users.lock"
GUARDIAN_LOCK = "guardian.lock"
SERVER_LOCK = "server.lock"
STATE_FILE = "server.json"
LOG_FILE = "server.log"

#: Seconds between two looks at the users and the server: the server must end within 2 s of the last user.
TICK = 0.25
#: Seconds between two looks at a server that is starting.
STARTING_TICK = 0.01
#: Seconds the server may take to write its data and end before it is killed.
STOP_TIMEOUT = 10.0
#: Seconds after which an orphaned server is told to end, killed, given up on. Mostly it follows its guardian.
ORPHAN_TERM, ORPHAN_KILL, ORPHAN_GIVE_UP = 1.0, 5.0, 8.0
#: Seconds: longest pause before a server that keeps failing is started again.
MAX_BACKOFF = 5.0
#: Bytes of log above which it is emptied at the next start.
MAX_LOG = 4 * 1024 * 1024

LINUX = os.uname().sysname == "Linux"
PR_SET_PDEATHSIG = 1
LOCAL_PEERPID = 2


class GuardianError(Exception):
    """The server cannot be run; the text goes to whoever started the guardian."""


class State(NamedTuple):
    """What the guardian tells its users; ``server_pid`` is None while the server is not ready."""

    socket: str
    guardian_pid: int
    server_pid: int | None


def read_state(state_dir: str) -> State | None:
    """Return the published state, or None when there is none that makes sense."""
    try:
        with open(os.path.join(state_dir, STATE_FILE), encoding="utf-8") as file:
            raw = json.load(file)
        pid = raw["server_pid"]
        return State(os.fspath(raw["socket"]), int(raw["guardian_pid"]), None if pid is None else int(pid))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def open_lock(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def try_lock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def same_file(fd: int, path: str) -> bool:
    """Tell whether ``path`` still names the open file: the folder may have been deleted under us."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def ping(path: str, timeout: float = 1.0) -> bytes:
    """Return the server's answer to PING, empty when there is none."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(path)
            connection.sendall(b"PING\r\n")
            return connection.recv(64)
    except OSError:
        return b""


def peer_pid(path: str) -> int:
    """Return the pid of the process that listens on a socket, even a stopped one; 0 when unknown."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(path)
            if LINUX:
                credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                return int(struct.unpack("3i", credentials)[0])
            return connection.getsockopt(0, LOCAL_PEERPID)
    except OSError:
        return 0


def server_command(binary: str, state_dir: str, socket_path: str) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": socket_path,
        "unixsocketperm": "700",
        "dir": state_dir,
        "appendonly": "yes",
        "appendfsync": "everysec",
        # Plain commands: Redis cannot read Valkey's RDB, and the binary may change under the data.
        "aof-use-rdb-preamble": "no",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        # Keep the command line: it says which folder the process belongs to.
        "set-proc-title": "no",
    }
    return [binary, *(part for name, value in options.items() for part in (f"--{name}", value))]


def _death_signal() -> Callable[[], None]:
    """Build what ties the server to this process, run in it before it begins (elsewhere: _evict_orphan)."""
    guardian = os.getpid()
    prctl = ctypes.CDLL(None).prctl if LINUX else None

    def tie() -> None:
        if prctl is not None:
            # SIGTERM, not SIGKILL: acknowledged writes may still wait for a slow fsync.
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != guardian:
            os._exit(1)

    return tie


class Guardian:
    def __init__(self, state_dir: str, socket_path: str, binary: str, report: int) -> None:
        self.state_dir = state_dir
        self.socket = socket_path
        self.binary = binary
        self.report_fd: int | None = report
        self.users = open_lock(self.path(USERS_LOCK))
        self.lock = open_lock(self.path(GUARDIAN_LOCK))
        self.server_lock = open_lock(self.path(SERVER_LOCK))
        self.server: subprocess.Popen[bytes] | None = None
        self.ready = False
        self.ever_ready = False
        self.ended_by_signal = False
        self.started_at = self.not_before = self.backoff = 0.0
        self.log_offset = 0

    def path(self, name: str) -> str:
        return os.path.join(self.state_dir, name)

    def report(self, text: str) -> None:
        """Tell the starter, once, how it went; it may be gone by now."""
        if self.report_fd is not None:
            with contextlib.suppress(OSError):
                os.write(self.report_fd, text.encode("utf-8", "replace"))
            os.close(self.report_fd)
            self.report_fd = None

    def run(self) -> None:
        if not self._become_guardian():
            self.report("busy")
            return
        try:
            self._watch_signals()
            self._prepare()
            while self._wanted():
                self._tend()
                self._pause()
        except GuardianError as error:
            log(str(error))
            self._stop_server()
            self.report(f"error: {error}")
        finally:
            self._clean_up()

    def _become_guardian(self) -> bool:
        """Take the guardian's lock, past the short-lived probes of users."""
        deadline = time.monotonic() + 0.5
        while not try_lock(self.lock, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return same_file(self.lock, self.path(GUARDIAN_LOCK))

    def _watch_signals(self) -> None:
        self.wake, wake_write = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _on_term(self, *_: object) -> None:
        self.ended_by_signal = True

    def _prepare(self) -> None:
        try:
            self._publish()
        except OSError as error:
            raise GuardianError(
                f"Relier cannot write to its state folder {self.state_dir}: {error}. Free space or give this user"
                " access there, or set RELIER_STATE_DIR to another folder."
            ) from error
        self._evict_orphan()
        if os.fstat(2).st_size > MAX_LOG:
            os.ftruncate(2, 0)
        self.tie = _death_signal()

    def _evict_orphan(self) -> None:
        """Wait for the server of a killed guardian to end, helping as much as it takes."""
        began, told = time.monotonic(), 0
        while not try_lock(self.server_lock, fcntl.LOCK_EX):
            waited = time.monotonic() - began
            wanted = signal.SIGKILL if waited > ORPHAN_KILL else signal.SIGTERM if waited > ORPHAN_TERM else 0
            if wanted != told and (pid := peer_pid(self.socket)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, wanted)
                told = wanted
            if waited > ORPHAN_GIVE_UP:
                raise GuardianError(f"An earlier server still uses {self.state_dir} and does not end. End it by hand.")
            time.sleep(0.02)

    def _wanted(self) -> bool:
        if self.ended_by_signal or not same_file(self.lock, self.path(GUARDIAN_LOCK)):
            return False
        return not try_lock(self.users, fcntl.LOCK_EX)

    def _tend(self) -> None:
        """Take the server one step towards ready, and keep what users need in its place."""
        if self.server is None:
            if time.monotonic() >= self.not_before:
                self._start_server()
        elif self.server.poll() is not None:
            self._after_exit(self.server)
        elif not self.ready:
            self.ready = ping(self.socket).startswith(b"+PONG")
        elif not os.path.exists(self.socket):
            # Somebody deleted it (a cleaner of temporary files?): a server cannot open it again.
            self._stop_server()
        # A full disk must not end a server that still answers.
        with contextlib.suppress(OSError):
            self._publish()
        if self.ready and not self.ever_ready:
            self.ever_ready = True
            self.report("ready")

    def _start_server(self) -> None:
        self.log_offset = os.fstat(2).st_size
        self.started_at = time.monotonic()
        try:
            self.server = subprocess.Popen(
                server_command(self.binary, self.state_dir, self.socket),
                stdin=subprocess.DEVNULL,
                pass_fds=(self.server_lock,),
                preexec_fn=self.tie,  # noqa: PLW1509 (this process has one thread)
            )
        except OSError as error:
            raise GuardianError(f"The server {self.binary} cannot be run: {error.strerror}.") from error

    def _after_exit(self, server: subprocess.Popen[bytes]) -> None:
        """Fail when the first start failed, else start again: at once, then with growing pauses."""
        if not self.ever_ready:
            raise GuardianError(
                f"The server {self.binary} ended with code {server.returncode} while it started in"
                f" {self.state_dir}. Its last lines:\n{self._last_lines()}"
            )
        now = time.monotonic()
        lasted = now - self.started_at > MAX_BACKOFF
        self.backoff = 0.0 if lasted else min(MAX_BACKOFF, max(0.1, 2 * self.backoff))
        self.not_before = now + self.backoff
        self.server, self.ready = None, False
        log(f"the server ended with code {server.returncode}, starting it again")

    def _last_lines(self) -> str:
        with open(self.path(LOG_FILE), "rb") as file:
            file.seek(self.log_offset)
            lines = file.read(64 * 1024).decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-8:])[-3000:]

    def _publish(self) -> None:
        """Write the state when it changed or somebody damaged the file."""
        pid = self.server.pid if self.server is not None and self.ready else None
        text = json.dumps(State(self.socket, os.getpid(), pid)._asdict())
        try:
            with open(self.path(STATE_FILE), encoding="utf-8") as file:
                intact = file.read(4096) == text
        except (OSError, ValueError):
            intact = False
        if not intact:
            with open(self.path(STATE_FILE + ".new"), "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(self.path(STATE_FILE + ".new"), self.path(STATE_FILE))

    def _pause(self) -> None:
        starting = self.server is None or not self.ready
        if select.select([self.wake], [], [], STARTING_TICK if starting else TICK)[0]:
            os.read(self.wake, 4096)

    def _stop_server(self) -> None:
        """End the server; SIGTERM makes it write and sync what it holds."""
        if self.server is None or self.server.poll() is not None:
            return
        self.server.terminate()
        try:
            self.server.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.server.kill()
            self.server.wait()

    def _clean_up(self) -> None:
        self._stop_server()
        if same_file(self.lock, self.path(GUARDIAN_LOCK)):
            with contextlib.suppress(OSError):
                os.unlink(self.path(STATE_FILE))
            with contextlib.suppress(OSError):
                os.unlink(self.socket)
            if os.path.dirname(self.socket) != self.state_dir:
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.dirname(self.socket))
        # Before users.lock, which the end of the process drops: whoever gets that must see no guardian.
        os.close(self.lock)


def log(text: str) -> None:
    print(f"guardian {os.getpid()}: {text}", file=sys.stderr, flush=True)


def detach() -> int:
    """Leave the starter for good; return the pipe that it reads our report from."""
    if os.fork():
        os._exit(0)
    report = os.dup(1)
    os.dup2(2, 1)
    os.umask(0o077)
    os.chdir("/")
    # A mask inherited from the starting thread would make the server deaf to SIGTERM.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return report


if __name__ == "__main__":
    Guardian(sys.argv[1], sys.argv[2], sys.argv[3], detach()).run()
