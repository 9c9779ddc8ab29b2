"""The pulse of a worker process: a small child process that shows that the worker lives while its interpreter is held.

A task may hold Python's global lock for minutes, in one call of native code. Then no thread of the process can beat.
The child can: see `relier.pulse_child`. A stopped or ended worker has no pulse.
"""

from __future__ import annotations

import logging
import marshal
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from relier.control import Endpoint
from relier.store import Store

logger = logging.getLogger(__name__)

#: A child that ended is replaced this long (s) after its start, at the soonest.
RESTART_AFTER = 3.0

_CHILD = Path(__file__).with_name("pulse_child.py")


class Pulse:
    """Keeps the child process running, and tells it where Redis is and who this worker is.

    There is none without `/proc`, and none over TLS: then the beat alone counts.

    Parameters:
      store: where the pulses go.
      endpoint: tells where the worker's own control connection leads to.
      every: seconds between two pulses.
    """

    def __init__(self, store: Store, endpoint: Callable[[], Endpoint | None], every: float) -> None:
        self._store = store
        self._endpoint = endpoint
        self._every = every
        self._child: subprocess.Popen[bytes] | None = None
        self._started = -RESTART_AFTER
        self._told = b""
        self._possible = is_possible(store.client)

    @property
    def pid(self) -> int | None:
        """The child's process id, while there is one."""
        return self._child.pid if self._child is not None else None

    def tend(self, identity: str) -> None:
        """Start the child if it is missing, and tell it what has changed. Called with every beat."""
        endpoint = self._endpoint() if self._possible else None
        if endpoint is None or not self._is_running():
            return
        order = self._order(endpoint, identity)
        if order != self._told:
            self._tell(order)

    def stop(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _is_running(self) -> bool:
        if self._child is not None and self._child.poll() is not None:
            self.stop()
        if self._child is None and time.monotonic() - self._started >= RESTART_AFTER:
            self._start()
        return self._child is not None

    def _start(self) -> None:
        self._started, self._told = time.monotonic(), b""
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_CHILD), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            logger.warning("The pulse cannot be started; the beat alone counts.", extra={"error": str(error)})
            return
        assert self._child.stdin is not None
        os.set_blocking(self._child.stdin.fileno(), False)

    def _tell(self, order: bytes) -> None:
        assert self._child is not None and self._child.stdin is not None
        try:
            written = os.write(self._child.stdin.fileno(), len(order).to_bytes(4, "big") + order)
        except OSError:
            written = 0
        if written == len(order) + 4:
            self._told = order
        else:  # It is stopped, or ended.
            self.stop()

    def _order(self, endpoint: Endpoint, identity: str) -> bytes:
        script, arguments = self._store.fleet.pulse(identity)
        opening = _opening(self._store.client)
        return marshal.dumps(
            (
                int(endpoint.family),
                endpoint.address,
                b"".join(map(_packed, opening)),
                len(opening),
                _packed((*script.by_sha, *arguments)),
                _packed((*script.by_source, *arguments)),
                self._every,
            )
        )


def is_possible(client: redis.Redis) -> bool:
    """Whether a worker that is connected like this client can have a pulse."""
    pool = client.connection_pool
    secured = issubclass(pool.connection_class, redis.SSLConnection) or pool.connection_kwargs.get("ssl_context")
    return Path("/proc/self/stat").exists() and not secured and not pool.connection_kwargs.get("credential_provider")


def _opening(client: redis.Redis) -> list[tuple[Any, ...]]:
    """Return the commands that begin a connection like this client's."""
    options = client.connection_pool.connection_kwargs
    user, password, database = options.get("username"), options.get("password"), options.get("db")
    opening: list[tuple[Any, ...]] = []
    if user or password:
        opening.append(("AUTH", user, password or "") if user else ("AUTH", password))
    if database:
        opening.append(("SELECT", database))
    return opening


def _packed(command: tuple[Any, ...]) -> bytes:
    """Return a command as Redis reads it."""
    parts = [str(part).encode() for part in command]
    return b"".join([b"*%d\r\n" % len(parts), *(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)])
