"""Which server of a Redis Cluster has which slots, learnt from the servers and learnt again when they change."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import redis
from redis.connection import AbstractConnection, Connection, ConnectionPool, SSLConnection
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

logger = logging.getLogger(__name__)

#: Where a server is: host and port.
Address = tuple[str, int]

#: Shortest time (s) between two questions who has which slots, when nobody has said that it changed.
SETTLED = 0.1


def slot_of(key: str | bytes) -> int:
    """Return the slot of a key, as the servers compute it."""
    text = key if isinstance(key, str) else key.decode("utf-8", "replace")
    start = text.find("{")
    end = text.find("}", start + 1)
    return _slot(text[start + 1 : end]) if 0 <= start < end - 1 else _slot(text)


@lru_cache(1024)
def _slot(hashed: str) -> int:
    return int(key_slot(hashed.encode("utf-8", "surrogatepass")))


def whole(keys: Sequence[str]) -> Sequence[str]:
    """Return the keys of a script, and one of the same slot that never exists.

    A script whose keys are all there begins on a server that the slot is leaving, and ends half-way, at the first key
    that is not there, because it is new, was just emptied, or has gone ahead: what it wrote stays. With a key that is
    missing at both ends it is told to try again (`TRYAGAIN`) before it begins, until the slot has arrived. The
    names are those of nobody's own set, and of a broker's queue; who may run the script may touch them
    (redis/users.acl).
    """
    shard, brace, _ = keys[0].partition("}:")
    return (*keys, f"{shard}}}:own:" if brace and shard.startswith("rl:") else f"{keys[0]}.never")


class NoMasterError(redis.exceptions.ClusterDownError):
    """No server of the cluster has a slot, or none answers."""

    def __init__(self, text: str) -> None:
        super().__init__(text)


class Topology:
    """The masters of one cluster.

    Parameters:
      seeds: servers to ask first; any of the cluster's.
      options: how to connect to each server.
      secured: whether over TLS.
    """

    def __init__(self, seeds: Iterable[Address], options: Mapping[str, Any], secured: bool = False) -> None:
        self.seeds = tuple(seeds)
        self.options = dict(options)
        self.secured = secured
        self._lock = threading.Lock()
        self._owners: list[Address | None] = []
        self._masters: tuple[Address, ...] = ()
        self._asked = 0.0
        #: Grows whenever a slot gets another master: it may lack the last writes of the one before.
        self.changes = 0
        self._doubted = False
        #: Who was asked in vain, or could not be reached: asked last the next time.
        self._silent: set[Address] = set()
        _known.add(self)

    def master_of(self, slot: int) -> Address:
        """Return the address of a slot's master. Raises `ClusterDownError` when it has none, or no server answers."""
        if not self._owners or self._doubted:
            self._learn()
        owner = self._owners[slot]
        if owner is None:
            self.doubt()
            raise NoMasterError(f"Slot {slot} has no master.")
        return owner

    def known_master(self, slot: int) -> Address | None:
        """Return a slot's master if it is known already; never asks, so it delays nobody."""
        return self._owners[slot] if self._owners else None

    @property
    def known_masters(self) -> tuple[Address, ...]:
        """The masters as far as they are known already."""
        return self._masters

    def masters(self) -> tuple[Address, ...]:
        """Return the addresses of all masters that have slots."""
        if not self._owners or self._doubted:
            self._learn()
        return self._masters

    def doubt(self, away: Address | None = None) -> None:
        """Note that what is known may be over: a server is away, or says so. It is asked for again before use."""
        if away is not None:
            self._silent.add(away)
        self._doubted = True

    def moved(self, slot: int, owner: Address) -> None:
        """Note what a server said about a slot; the rest is asked for before the next use."""
        with self._lock:
            if self._owners and self._owners[slot] != owner:
                self._owners[slot] = owner
                self.changes += 1
        self.doubt()

    def connection(self, address: Address) -> AbstractConnection:
        """Return a connection to one server; not connected yet."""
        host, port = address
        kind = PromptSSLConnection if self.secured else PromptConnection
        return kind(host=host, port=port, **self.options)

    def forget(self) -> None:
        """Begin anew in a forked child: a thread that it does not have may have been asking."""
        self._lock = threading.Lock()
        self._doubted = True

    def _learn(self) -> None:
        with self._lock:
            if self._owners and (not self._doubted or time.monotonic() - self._asked < SETTLED):
                return
            self._doubted = False
            try:
                owners = self._ask()
            except NoMasterError:
                self._doubted = True
                raise
            self._asked = time.monotonic()
            if self._owners and any(a != b for a, b in zip(self._owners, owners, strict=True)):
                self.changes += 1
                logger.info("Slots of the cluster have other masters now.")
            self._owners = owners
            self._masters = tuple(sorted({owner for owner in owners if owner is not None}))
            self._doubted = None in owners

    def _ask(self) -> list[Address | None]:
        failure = ""
        for address in sorted(dict.fromkeys((*self._masters, *self.seeds)), key=self._silent.__contains__):
            connection = self.connection(address)
            try:
                connection.connect()
                connection.send_command("CLUSTER", "SLOTS", check_health=False)
                owners = _owners(connection.read_response(), address)
                self._silent.clear()
                return owners
            except (redis.RedisError, OSError) as error:
                self._silent.add(address)
                failure = f"{address[0]}:{address[1]}: {' '.join(str(error).split())}"
            finally:
                connection.disconnect()
        raise NoMasterError(f"No server of the cluster answers ({failure}).")


_known: weakref.WeakSet[Topology] = weakref.WeakSet()


def _in_child() -> None:
    for topology in list(_known):
        topology.forget()


os.register_at_fork(after_in_child=_in_child)


def _owners(reply: Any, asked: Address) -> list[Address | None]:
    owners: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, master, *_ in reply:
        host = master[0].decode() if isinstance(master[0], bytes) else str(master[0] or "")
        owner = (host if host and host != "?" else asked[0], int(master[1]))
        owners[int(first) : int(last) + 1] = [owner] * (int(last) - int(first) + 1)
    return owners


def client_of(topology: Topology, slot: int, max_connections: int) -> redis.Redis:
    """Return a client that leads to the master of a slot."""
    return redis.Redis(connection_pool=SlotPool(topology, slot, max_connections))


def client_at(topology: Topology, address: Address) -> redis.Redis:
    """Return a client for one server of a cluster."""
    return redis.Redis(host=address[0], port=address[1], ssl=topology.secured, **topology.options)


class Prompt(Connection):
    """Gives up a server that accepts a connection and says nothing, after the time for connecting: it hangs."""

    def _connect(self) -> Any:
        sock = super()._connect()  # type: ignore[no-untyped-call]
        sock.settimeout(self.socket_connect_timeout)
        return sock

    def on_connect_check_health(self, check_health: bool = True) -> None:
        super().on_connect_check_health(check_health)
        sock: Any = self._sock
        sock.settimeout(self.socket_timeout)


class PromptConnection(Prompt):
    """To one server."""


class PromptSSLConnection(Prompt, SSLConnection):
    """The same over TLS."""


class SlotPool(ConnectionPool):
    """A pool of connections to the master of one slot, whichever that is when they are made."""

    def __init__(self, topology: Topology, slot: int, max_connections: int) -> None:
        self.topology = topology
        self.slot = slot
        kind = SlotSSLConnection if topology.secured else SlotConnection
        super().__init__(
            connection_class=kind, max_connections=max_connections, topology=topology, slot=slot, **topology.options
        )


class SlotConnection(Prompt):
    """Asks for its address whenever it connects."""

    def __init__(self, topology: Topology, slot: int, **options: Any) -> None:
        self._topology, self._slot = topology, slot
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def connect(self) -> None:
        if self.is_connected:
            return
        self.host, self.port = address = self._topology.master_of(self._slot)
        try:
            super().connect()  # type: ignore[no-untyped-call]
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            self._topology.doubt(address)
            raise


class SlotSSLConnection(SlotConnection, SSLConnection):
    """The same over TLS."""
