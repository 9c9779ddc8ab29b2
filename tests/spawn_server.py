"""Forks processes that have imported already what takes longest: `python -m tests.spawn_server FD`; see `tests.spawn`.

It has no thread, no connection and no settings. Each request is a line of JSON: a command, with the descriptors of its
stdin, stdout and stderr, is answered with a pid, and the child becomes what `python -m` or `python -c` would be; `reap`
is answered with the exit code of a child, null while it runs. The server ends when nobody can ask any more.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = str(Path(__file__).resolve().parent.parent)

_MODULES = (
    "dramatiq.cli",
    "redis.asyncio",
    "pika",
    "relier.boot",
    "relier.brokers.rabbitmq",
    "relier.brokers.redis",
    "relier.failpoints",
    "relier_cli.app",
)


def main(descriptor: int) -> None:
    """Serve until the other end is closed. Returns in a child, which then is what it was asked to be."""
    for name in _MODULES:
        importlib.import_module(name)
    base = [entry for entry in sys.path if entry not in ("", ROOT)]
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=descriptor) as line:
        while True:
            text, descriptors, _, _ = socket.recv_fds(line, 1 << 20, 3)
            if not text:
                sys.exit()
            request = json.loads(text)
            if "reap" in request:
                line.sendall(json.dumps(_exit_code(request["reap"])).encode())
                continue
            pid = os.fork()
            if not pid:
                break
            line.sendall(json.dumps(pid).encode())
            for each in descriptors:
                os.close(each)
    _become(request, descriptors, base)


def _exit_code(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _become(request: dict[str, Any], descriptors: list[int], base: list[str]) -> None:
    if request["session"]:
        os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    _open_streams()
    flag, what, *arguments = request["command"]
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [os.getcwd() if flag == "-m" else "", *path, *base]
    sys.argv[:] = [flag, *arguments]
    importlib.invalidate_caches()
    importlib.reload(sys.modules["relier.failpoints"])  # It reads the environment once.
    sys.modules["__main__"] = own = ModuleType("__main__")
    if flag == "-c":
        exec(compile(what, "<string>", "exec"), own.__dict__)
    else:
        if not hasattr(sys.modules.get(what), "__path__"):
            sys.modules.pop(what, None)  # It is not the main module yet.
        runpy._run_module_as_main(what)  # type: ignore[attr-defined]


def _open_streams() -> None:
    """Streams know since they were opened whether they are a terminal's."""
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # type: ignore[misc]  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # type: ignore[misc]  # noqa: SIM115


if __name__ == "__main__":
    main(int(sys.argv[1]))
