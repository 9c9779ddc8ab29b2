"""A process is cut off from some addresses, and from no others; afterwards nothing of it is left."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from relier.chaos.addresses import Address, normal
from relier.chaos.cut import Cut


def listening(family: socket.AddressFamily, address: Address) -> socket.socket:
    server = socket.socket(family)
    server.bind(address)
    server.listen()
    return server


@pytest.fixture(params=["tcp", "unix"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    is_unix = request.param == "unix"
    with listening(
        socket.AF_UNIX if is_unix else socket.AF_INET, str(tmp_path / "s") if is_unix else ("127.0.0.1", 0)
    ) as server:
        yield server


def connected(server: socket.socket) -> socket.socket:
    client = socket.socket(server.family)
    client.settimeout(10)
    try:
        client.connect(server.getsockname())
    except OSError:
        client.close()
        raise
    return client


def address_of(server: socket.socket) -> Address:
    address = normal(server.getsockname())
    assert address is not None
    return address


def test_what_is_open_is_closed_and_what_is_new_is_refused_until_it_is_over(server: socket.socket) -> None:
    with connected(server) as client, server.accept()[0] as accepted:
        accepted.settimeout(10)
        with Cut({address_of(server)}):
            assert client.recv(1) == b""
            assert accepted.recv(1) == b"", "the other side sees it as well"
            with pytest.raises(ConnectionRefusedError, match="cut off by rl chaos"):
                connected(server)
            with socket.socket(server.family) as another:
                assert another.connect_ex(server.getsockname()) != 0
    with connected(server):
        pass
    assert "connect" not in vars(socket.socket)


def test_what_cannot_begin_is_over(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: str) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as full:
        full.setattr(os, "listdir", refused)
        with pytest.raises(OSError, match="Too many"), Cut({address_of(server)}):
            pass

    with connected(server):
        pass


def test_other_addresses_are_left_alone(server: socket.socket) -> None:
    with (
        listening(socket.AF_INET, ("127.0.0.1", 0)) as other,
        connected(other) as client,
        other.accept()[0] as accepted,
        Cut({address_of(server)}),
        connected(other),
    ):
        accepted.sendall(b"x")
        assert client.recv(1) == b"x"


def test_overlapping_cuts_end_one_by_one(server: socket.socket) -> None:
    with Cut({address_of(server)}):
        with Cut({address_of(server)}):
            pass
        with pytest.raises(ConnectionRefusedError):
            connected(server)
    with connected(server):
        pass


def test_an_event_loop_is_refused_as_well(server: socket.socket) -> None:
    async def connect() -> None:
        with socket.socket(server.family) as client:
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, server.getsockname())

    with Cut({address_of(server)}), pytest.raises(ConnectionRefusedError):
        asyncio.run(connect())
    asyncio.run(connect())


@pytest.mark.parametrize(
    ("address", "form"),
    [
        (("::ffff:127.0.0.1", 6379, 0, 0), ("127.0.0.1", 6379)),
        (("fe80::1%eth0", 6379, 0, 2), ("fe80::1", 6379)),
        ("/run/s", "/run/s"),
        (b"/run/s", "/run/s"),
        ("", None),
        (7, None),
    ],
)
def test_one_address_has_one_form(address: object, form: Address | None) -> None:
    assert normal(address) == form
