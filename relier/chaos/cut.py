"""Cuts this process off from some addresses, and nobody else: no privilege and no proxy is needed.

What it has open there is shut down, as by a peer that went away; a new connection is refused before a packet leaves.
That holds for whatever in the process uses Python's sockets: Relier's own connections, the broker's, the tasks'.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Set
from typing import Any

from relier.chaos.addresses import Address, normal

#: Where the numbers of this process's open files are.
_OPEN = "/dev/fd"

_lock = threading.Lock()
#: What is cut now, by whom.
_cuts: dict[object, frozenset[Address]] = {}


class Cut:
    """A cut of some addresses, for as long as the block lasts. Several may overlap."""

    def __init__(self, addresses: Set[Address]) -> None:
        self.addresses = frozenset(addresses)

    def __enter__(self) -> Cut:
        with _lock:
            if not _cuts:
                socket.socket.connect = _connect  # type: ignore[assignment,method-assign]
                socket.socket.connect_ex = _connect_ex  # type: ignore[assignment,method-assign]
            _cuts[self] = self.addresses
        try:
            self.close()
        except BaseException:  # No file can be opened any more, perhaps: the block is not entered, nor left.
            self.__exit__()
            raise
        return self

    def close(self) -> int:
        """Shut down what is open; to be repeated, for what was just being made. Returns how many there were."""
        return sum(_shut_down(int(name), self.addresses) for name in os.listdir(_OPEN))

    def __exit__(self, *_: object) -> None:
        with _lock:
            _cuts.pop(self, None)
            if not _cuts:  # Python's own are inherited.
                del socket.socket.connect
                del socket.socket.connect_ex


def _shut_down(number: int, addresses: Set[Address]) -> bool:
    try:
        copy = os.dup(number)
    except OSError:  # closed meanwhile
        return False
    try:
        sock = socket.socket(fileno=copy)
    except OSError:  # no socket
        os.close(copy)
        return False
    with sock:
        try:
            if normal(sock.getpeername()) not in addresses:
                return False
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return False
    return True


def _is_cut(address: Any) -> bool:
    wanted = normal(address)
    return any(wanted in addresses for addresses in list(_cuts.values()))


def _connect(sock: socket.socket, address: Any) -> None:
    if _is_cut(address):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "cut off by rl chaos")
    super(socket.socket, sock).connect(address)


def _connect_ex(sock: socket.socket, address: Any) -> int:
    if _is_cut(address):
        return errno.ECONNREFUSED
    return int(super(socket.socket, sock).connect_ex(address))
