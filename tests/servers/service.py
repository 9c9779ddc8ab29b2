"""What every server of the tests can do, and how a local one is run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from relier.urls import safe_url
from tests import guard
from tests.waiting import wait_until


class Server(ABC):
    """One server that a test may use and, when it is private, hurt."""

    url: str
    description: str

    @abstractmethod
    def answers(self) -> bool:
        """Whether it answers within a second."""

    def wait_ready(self) -> None:
        wait_until(self.answers, 60, f"an answer of {safe_url(self.url)}")

    @abstractmethod
    def kill(self) -> None:
        """End the server as SIGKILL does; its data stay."""

    @abstractmethod
    def restart(self) -> None:
        """Start the server again on its data, at the same address; returns when it answers."""

    @abstractmethod
    def stop(self) -> None:
        """Freeze the server as SIGSTOP does."""

    @abstractmethod
    def cont(self) -> None:
        """Let a frozen server go on."""

    @abstractmethod
    def close(self) -> None:
        """End the server and remove its data."""


class LocalProcess:
    """A process group that dies with the test process, whatever that dies of."""

    def __init__(
        self,
        arguments: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        stdin: int | None = None,
    ) -> None:
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                arguments,
                env=environment,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        guard.watch(self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def write(self, data: bytes) -> None:
        """Write to its standard input."""
        assert self._process.stdin
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def kill(self) -> None:
        guard.forget(self.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        self._process.send_signal(signal.SIGCONT)


def container(image: str) -> Any:
    """Describe a container; raises when no engine answers."""
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    from testcontainers.core.container import DockerContainer  # its import contacts the engine

    return DockerContainer(image)


class ContainerServer(Server):
    """A server in a container, at a fixed port so that it keeps its address over a restart."""

    _container: Any

    def _run(self, described: Any, url: str) -> None:
        """Start a container and wait until it answers at the URL, in which HOST stands for its host."""
        self._container = described
        try:
            self._container.start()
            self.url = url.replace("HOST", self._container.get_container_host_ip())
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
    """A server at a URL that we were given: ours to empty, not to hurt."""

    def kill(self) -> None:
        raise NotImplementedError("a given server is not ours to kill")

    restart = stop = cont = kill

    def close(self) -> None:
        """Leave it running."""


class NotStarted(RuntimeError):
    """A server ended before its first answer; the text has its last words."""


def start_on_free_ports(start: Callable[[], None]) -> None:
    """Call `start`, which takes ports, until no other process has taken one of them in between."""
    for _ in range(2):
        try:
            return start()
        except NotStarted:
            continue
    return start()


def free_port() -> int:
    """Return a free port below those of outgoing connections, so that a restart finds it free again."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("no free port on loopback")
