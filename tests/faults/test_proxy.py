"""Each fault of the proxy really happens, and really ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.faults.proxy import BOTH, TO_CLIENT, TO_SERVER, Proxy
from tests.waiting import wait_until


class Echo(threading.Thread):
    """A server that keeps what it gets and sends it back."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.got: list[bytes] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}/0"
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1000):
                    self.got.append(data)
                    connection.sendall(data)
            except OSError:
                return


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.listener.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.url) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def sockets() -> Iterator[list[socket.socket]]:
    yield _opened
    while _opened:
        _opened.pop().close()


_opened: list[socket.socket] = []


def opened(proxy: Proxy, timeout: float = 30.0) -> socket.socket:
    _opened.append(socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout))
    return _opened[-1]


def connected(proxy: Proxy, timeout: float = 30.0) -> socket.socket:
    connection = opened(proxy, timeout)
    connection.sendall(b"hello")
    assert connection.recv(100) == b"hello"
    return connection


def is_reset(connection: socket.socket) -> bool:
    try:
        return connection.recv(100) == b""
    except ConnectionError:
        return True


def test_a_cut_resets_what_is_there_and_lets_new_connections_through(proxy: Proxy) -> None:
    first, second = connected(proxy), connected(proxy)
    assert proxy.cut() == 2
    assert is_reset(first)
    assert is_reset(second)
    connected(proxy).close()
    assert (proxy.seen["cut"], proxy.seen["connected"]) == (2, 3)


def test_refused_until_healed(proxy: Proxy) -> None:
    old = connected(proxy)
    proxy.refuse()
    assert is_reset(old)
    assert is_reset(opened(proxy))
    assert proxy.seen["refused"] == 1
    proxy.heal()
    connected(proxy).close()


def test_a_delay_holds_both_directions_up(proxy: Proxy) -> None:
    connection = connected(proxy)
    proxy.delay(0.2)
    start = time.monotonic()
    connection.sendall(b"late")
    assert connection.recv(100) == b"late"
    assert time.monotonic() - start >= 0.4
    assert proxy.seen["delayed"] == 2


def test_half_open_towards_the_server_keeps_requests_back_until_it_heals(proxy: Proxy, echo: Echo) -> None:
    connection = connected(proxy, timeout=0.3)
    proxy.half_open(TO_SERVER)
    connection.sendall(b"request")
    with pytest.raises(TimeoutError):
        connection.recv(100)
    assert b"request" not in echo.got
    connection.close()  # The client has given up; what it sent arrives all the same.
    proxy.heal()
    wait_until(lambda: b"request" in echo.got, 60, "the request that was held back")
    assert proxy.seen["held to server"] == 1


def test_half_open_towards_the_client_keeps_replies_back(proxy: Proxy, echo: Echo) -> None:
    connection = connected(proxy, timeout=0.3)
    proxy.half_open(TO_CLIENT)
    connection.sendall(b"request")
    wait_until(lambda: b"request" in echo.got, 60, "the request")
    with pytest.raises(TimeoutError):
        connection.recv(100)
    proxy.heal()
    connection.settimeout(30)
    assert connection.recv(100) == b"request"
    assert proxy.seen["held to client"] == 1


def test_a_new_connection_over_a_half_open_link_says_nothing(proxy: Proxy) -> None:
    proxy.half_open(*BOTH)
    connection = opened(proxy, timeout=0.3)
    connection.sendall(b"hello")
    with pytest.raises(TimeoutError):
        connection.recv(100)


def test_old_connections_alone_may_be_half_open(proxy: Proxy, echo: Echo) -> None:
    old = connected(proxy)
    proxy.half_open(TO_SERVER, new=False)
    old.sendall(b"late")
    wait_until(lambda: proxy.seen["held to server"], 60, "data that is held back")
    connected(proxy)
    assert b"late" not in echo.got
    proxy.heal()
    assert old.recv(100) == b"late"


def test_a_dropped_reply_is_that_of_a_request_that_was_carried_out(proxy: Proxy, echo: Echo) -> None:
    connection, other = connected(proxy), connected(proxy)
    proxy.drop_reply(request=b"claim")
    other.sendall(b"ping")
    assert other.recv(100) == b"ping"
    connection.sendall(b"the claim")
    assert is_reset(connection)
    assert b"the claim" in echo.got
    assert proxy.seen["replies dropped"] == 1
    again = connected(proxy)
    again.sendall(b"the claim")
    assert again.recv(100) == b"the claim"  # once


def test_the_url_leads_through_the_proxy(proxy: Proxy) -> None:
    assert proxy.url == f"redis://127.0.0.1:{proxy.port}/0"
    with Proxy("amqp://user:word@10.0.0.1:5672/%2F?heartbeat=3") as other:
        assert other.url == f"amqp://user:word@127.0.0.1:{other.port}/%2F?heartbeat=3"
    with Proxy("unix:///tmp/some/s") as other:
        assert urlsplit(other.url).scheme == "redis"


def test_a_server_that_is_away_resets_connections(echo: Echo) -> None:
    echo.listener.close()
    with Proxy("redis://127.0.0.1:1/0") as proxy:
        assert is_reset(opened(proxy))
