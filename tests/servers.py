"""Servers that tests may use and hurt: a local process, a container, a given one."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from relier.urls import safe_url
from tests.waiting import wait_until

REDIS_URL_VARIABLE = "RELIER_TEST_REDIS_URL"
REDIS_IMAGE = "redis:7.0.15"
DEFAULTS = {"appendonly": "yes", "appendfsync": "everysec", "save": "''", "maxmemory-policy": "noeviction"}


class Server(ABC):
    """One store server that a test may use and, when it is private, hurt."""

    url: str
    description: str

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

    def wait_ready(self) -> None:
        wait_until(self.answers, 30, f"an answer of {safe_url(self.url)}")

    @abstractmethod
    def kill(self) -> None:
        """End the server as SIGKILL does; its data stay."""

    @abstractmethod
    def restart(self) -> None:
        """Start the server again on its data, at the same address."""

    @abstractmethod
    def stop(self) -> None:
        """Freeze the server as SIGSTOP does."""

    @abstractmethod
    def cont(self) -> None:
        """Let a frozen server go on."""

    @abstractmethod
    def close(self) -> None:
        """End the server and remove its data."""


class LocalServer(Server):
    """A server process of our own, on loopback or a unix socket, that dies with the test process."""

    def __init__(self, binary: str, description: str, config: Mapping[str, str], tcp: bool) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rl-server-"))
        self.description = description
        self._port = _free_port() if tcp else 0
        self._arguments = [
            binary,
            "--port",
            str(self._port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self.folder),
        ]
        self.url = f"redis://127.0.0.1:{self._port}/0"
        if not tcp:
            path = self.folder / "s"
            self._arguments += ["--unixsocket", str(path), "--unixsocketperm", "700"]
            self.url = f"unix://{path}"
        self._arguments += _options(config)
        try:
            self.restart()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def restart(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r word; [ "$word" = over ] || kill -9 "$0"', str(self.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: self._process.poll() is not None or self.answers(), 30, "the server's first answer")
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.description} did not start: {(self.folder / 'log').read_text()[-500:]}")

    def kill(self) -> None:
        if not hasattr(self, "_process"):
            return
        if self._guard.poll() is None:
            self._guard.communicate(b"over\n")
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class ContainerServer(Server):
    """A Redis in a container, at a fixed port so that it keeps its address over a restart."""

    def __init__(self, config: Mapping[str, str]) -> None:
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
        from testcontainers.core.container import DockerContainer  # its import contacts the engine

        self.description = f"container {REDIS_IMAGE}"
        port = _free_port()
        command = ["redis-server", *_options(config)]
        self._container = DockerContainer(REDIS_IMAGE).with_command(command).with_bind_ports(6379, port)
        try:
            self._container.start()
            self.url = f"redis://{self._container.get_container_host_ip()}:{port}/0"
            self.wait_ready()
        except BaseException:
            self.close()
            raise

    def kill(self) -> None:
        self._container.get_wrapped_container().kill(signal="KILL")

    def restart(self) -> None:
        self._container.get_wrapped_container().start()
        self.wait_ready()

    def stop(self) -> None:
        self._container.get_wrapped_container().pause()

    def cont(self) -> None:
        self._container.get_wrapped_container().unpause()

    def close(self) -> None:
        if self._container.get_wrapped_container() is not None:
            self._container.stop(force=True)


class GivenServer(Server):
    """The server at a URL that we were given: ours to empty, not to hurt."""

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

    def kill(self) -> None:
        raise NotImplementedError("a given server is not ours to kill")

    restart = stop = cont = kill

    def close(self) -> None:
        """Leave it running."""


def _options(config: Mapping[str, str]) -> list[str]:
    """Return the configuration as arguments; a value is split as redis.conf does."""
    return [part for name, value in {**DEFAULTS, **config}.items() for part in (f"--{name}", *shlex.split(value))]


def _free_port() -> int:
    """Return a free port below those of outgoing connections, so that a restart finds it free again."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("no free port on loopback")
