"""Where a process's connections to store and broker lead: what a partition cuts."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from typing import Any

from relier.process import WorkerProcess
from relier.store.cluster import ClusterRunner
from relier.urls import safe_url

#: An address as the operating system knows it: host and port, or the path of a socket.
Address = tuple[str, int] | str

_PLACE = re.compile(r"\w+://(?P<host>\[[^]]+\]|[^:/\s]+):(?P<port>\d+)")
_PATH = re.compile(r"unix://(?P<path>/\S+)")


def normal(address: Any) -> Address | None:
    """Return an address in the one form in which they are compared; None for one of another kind."""
    if isinstance(address, bytes):
        address = address.decode(errors="surrogateescape")
    if isinstance(address, str):
        return address or None
    if isinstance(address, tuple) and len(address) >= 2 and isinstance(address[0], str):
        return address[0].removeprefix("::ffff:").partition("%")[0], int(address[1])
    return None


def of_store(process: WorkerProcess) -> set[Address]:
    """Return where the store is: as the settings say, and where the connections lead now."""
    settings, client = process.settings, process.store.client
    options = client.connection_pool.connection_kwargs
    endpoint = process.control.endpoint()
    found = {normal(options["path"])} if options.get("path") else set()
    if options.get("host"):
        found |= set(_resolved(options["host"], int(options.get("port") or 6379)))
    for host, port in settings.redis_sentinel_nodes if settings.redis_use_sentinel else ():
        found |= set(_resolved(host, port))
    if isinstance(process.store.runner, ClusterRunner):
        topology = process.store.runner.topology
        for host, port in {*topology.seeds, *topology.masters()}:
            found |= set(_resolved(host, port))
    if endpoint is not None:
        found.add(normal(endpoint.address))
    return {address for address in found if address is not None}


def of_broker(process: WorkerProcess) -> set[Address]:
    """Return where the broker is, as far as it tells."""
    place = process.place.address
    if path := _PATH.search(place):
        return {re.sub(r"/\d+$", "", path["path"]), path["path"]}
    if process.shares_redis:
        return of_store(process)
    return {a for match in _PLACE.finditer(place) for a in _resolved(match["host"].strip("[]"), int(match["port"]))}


def _resolved(host: str, port: int) -> Iterator[Address]:
    yield host, port
    try:
        for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            if (address := normal(found[4])) is not None:
                yield address
    except OSError:
        return


def shown(addresses: Iterable[Address]) -> list[str]:
    """Return addresses for a log line."""
    return sorted(safe_url(a) if isinstance(a, str) else f"{a[0]}:{a[1]}" for a in addresses)
