"""Servers that speak Redis: the wheel's, Debian's, a container, a given one."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from relier.urls import safe_url
from tests.servers.service import (
    ContainerServer,
    GivenServer,
    LocalProcess,
    NotStarted,
    Server,
    container,
    free_port,
    start_on_free_ports,
)
from tests.waiting import wait_until

REDIS_URL_VARIABLE = "RELIER_TEST_REDIS_URL"
REDIS_IMAGE = "redis:7.0.15"
DEFAULTS = {"appendonly": "yes", "appendfsync": "everysec", "save": "''", "maxmemory-policy": "noeviction"}


class RedisServer(Server):
    """A store, and a broker."""

    @property
    def settings(self) -> dict[str, Any]:
        """What a process needs to know to use it, by names of settings."""
        return {"redis_url": self.url}

    def client(self, **options: Any) -> redis.Redis:
        """Return a client without automatic retries."""
        options = {"socket_timeout": 10, "retry": Retry(NoBackoff(), 0), **options}
        return redis.Redis.from_url(self.url, **options)

    def answers(self) -> bool:
        try:
            with self.client(socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def empty(self) -> None:
        with self.client() as client:
            client.flushall()


class OwnRedis(RedisServer):
    """A server process of our own, with its data and its log in a folder that goes with it.

    Parameters:
      description: what it is.
      start: begins it; called again with other ports while those that it takes are not free.
    """

    _process: LocalProcess

    def __init__(self, description: str, start: Callable[[], None]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rl-server-"))
        self.description = description
        try:
            start_on_free_ports(start)
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _launch(self, log: Path) -> LocalProcess:
        """Start the process."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def restart(self) -> None:
        log = self.folder / "log"
        self._process = self._launch(log)
        wait_until(lambda: self._process.has_ended or self.answers(), 60, "the server's first answer")
        if self._process.has_ended:
            self._process.kill()
            raise NotStarted(f"{self.description} did not start: {log.read_text()[-500:]}")

    def kill(self) -> None:
        if hasattr(self, "_process"):
            self._process.kill()

    def stop(self) -> None:
        self._process.stop()

    def cont(self) -> None:
        self._process.cont()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class LocalRedis(OwnRedis):
    """A server on loopback or a unix socket."""

    def __init__(self, binary: str, description: str, config: Mapping[str, str], tcp: bool) -> None:
        super().__init__(description, lambda: self._start_on(binary, free_port() if tcp else 0, _options(config)))

    def _start_on(self, binary: str, port: int, options: list[str]) -> None:
        self._arguments = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        self.url = f"redis://127.0.0.1:{port}/0"
        if not port:
            path = self.folder / "s"
            self._arguments += ["--unixsocket", str(path), "--unixsocketperm", "700"]
            self.url = f"unix://{path}"
        self._arguments += options
        self.restart()

    def _launch(self, log: Path) -> LocalProcess:
        return LocalProcess(self._arguments, log)

    def kill(self) -> None:
        """End it at once, but not before it has written what it acknowledged.

        Under `everysec` Redis puts that off while an fsync goes on, for two seconds at most. Only what a host loses is
        lost then, and what a test loses by chance proves nothing.
        """
        if hasattr(self, "_process"):
            with suppress(redis.RedisError), self.client(socket_timeout=1) as client:
                client.config_set("appendfsync", "always")
        super().kill()


class ContainerRedis(ContainerServer, RedisServer):
    """A Redis in a container."""

    def __init__(self, config: Mapping[str, str]) -> None:
        self.description = f"container {REDIS_IMAGE}"
        port = free_port()
        described = container(REDIS_IMAGE).with_command(["redis-server", *_options(config)])
        self._run(described.with_bind_ports(6379, port), f"redis://HOST:{port}/0")


class GivenRedis(GivenServer, RedisServer):
    """The Redis at a URL that we were given."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.description = f"{REDIS_URL_VARIABLE} ({safe_url(url)})"
        self._refuse_foreign_data()

    def _refuse_foreign_data(self) -> None:
        with self.client() as client:
            for key in client.scan_iter(count=1000):
                if not key.startswith((b"rl:", b"dramatiq", b"relier")):
                    raise RuntimeError(
                        f"{self.description} holds other data, and the tests empty it: give an empty server"
                    )


def given_redis_url() -> str:
    """Return the URL that the environment gives; '' without one."""
    return os.environ.get(REDIS_URL_VARIABLE, "")


def _options(config: Mapping[str, str]) -> list[str]:
    """Return the configuration as arguments; a value is split as redis.conf does."""
    return [part for name, value in {**DEFAULTS, **config}.items() for part in (f"--{name}", *shlex.split(value))]
