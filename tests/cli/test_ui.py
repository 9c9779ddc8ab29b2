"""`rl ui`: a page for this machine alone, which shows what there is as text."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from relier.errors import StoreUnavailableError
from relier_cli.ui import server as served
from relier_cli.ui.command import Together
from relier_cli.ui.server import DATA, FILES, HEADERS, Server, is_loopback
from tests import schemas
from tests.cli.conftest import CommandLine, Tasks
from tests.processes import Started
from tests.servers import RedisServer
from tests.waiting import wait_until

FOLDER = Path(served.__file__).parent


@pytest.fixture(params=["embedded"])
def server(request: pytest.FixtureRequest) -> RedisServer:
    """One kind of server will do: what the page asks of it has tests of its own."""
    return request.getfixturevalue("servers").store(request.param)  # type: ignore[no-any-return]


class Page:
    """A server within this process, and what it shows."""

    def __init__(self) -> None:
        self.data: Any = {"actor": "<script>alert(1)</script>"}
        self.server = Server(("127.0.0.1", 0), self._data)
        self.port = int(self.server.server_address[1])
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def _data(self) -> Any:
        if isinstance(self.data, Exception):
            raise self.data
        return self.data

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer, body


@pytest.fixture
def page() -> Iterator[Page]:
    page = Page()
    yield page
    page.server.shutdown()
    page.server.server_close()


def test_the_page_and_its_data_are_served_with_every_header(page: Page) -> None:
    for path in (*FILES, DATA, "/?x=1", "/nothing"):
        answer, body = page.ask(path)
        assert answer.status == (404 if path == "/nothing" else 200)
        assert {name: answer.getheader(name) for name in HEADERS} == HEADERS
        assert answer.getheader("Access-Control-Allow-Origin") is None
        assert int(answer.getheader("Content-Length") or 0) == len(body) > 0
    answer, body = page.ask(DATA)
    assert answer.getheader("Content-Type") == "application/json"
    assert json.loads(body) == page.data
    answer, body = page.ask("/", "HEAD")
    assert (answer.status, body) == (200, b"")


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "[::1"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
    ids=str,
)
def test_other_sites_get_nothing(headers: dict[str, str], page: Page) -> None:
    for path in (*FILES, DATA):
        answer, body = page.ask(path, **headers)
        assert (answer.status, body) == (403, b"Not for other sites.\n")
        assert {name: answer.getheader(name) for name in HEADERS} == HEADERS


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost:9000"},
        {"Host": "[::1]:8008"},
        {"Origin": "http://127.0.0.1:8008", "Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
    ],
    ids=str,
)
def test_the_page_itself_and_who_types_its_address_get_it(headers: dict[str, str], page: Page) -> None:
    assert page.ask(DATA, **headers)[0].status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(method: str, page: Page) -> None:
    answer, _ = page.ask(DATA, method)
    assert answer.status == 501
    assert answer.getheader("Content-Security-Policy") == HEADERS["Content-Security-Policy"]


def test_files_beside_the_page_are_not_served(page: Page) -> None:
    for path in ("/server.py", "/../server.py", "/%2e%2e/server.py", "//etc/passwd", "/ui/index.html"):
        assert page.ask(path)[0].status == 404


def test_a_store_that_is_away_is_told_and_anything_else_by_its_name(page: Page) -> None:
    page.data = StoreUnavailableError("Relier cannot reach Redis (redis://:***@here/0).")
    answer, body = page.ask(DATA)
    assert (answer.status, json.loads(body)) == (503, {"error": str(page.data)})
    page.data = KeyError("s3cr3t")
    answer, body = page.ask(DATA)
    assert (answer.status, json.loads(body)) == (500, {"error": "KeyError"})


def test_a_client_that_says_nothing_holds_up_nobody(page: Page) -> None:
    with socket.create_connection(("127.0.0.1", page.port)):
        assert page.ask("/")[0].status == 200


def test_only_loopback_is_listened_on() -> None:
    assert [host for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost") if not is_loopback(host)] == []
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.com", "", "localhost.evil.example"):
        assert not is_loopback(host)
        with pytest.raises(ValueError, match="is not loopback"):
            Server((host, 0), dict)


def test_the_script_makes_text_of_what_it_gets_and_nothing_else() -> None:
    """What it shows may come from anybody's message."""
    script, markup = (FOLDER / "view.js").read_text(), (FOLDER / "index.html").read_text()
    ways = r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|setAttribute"
    assert not re.findall(ways + r"|\.(?:href|src)\b|\.on\w+ *=", script)
    assert "textContent" in script
    assert not re.findall(r"<script(?! src=)|<style|\son\w+=|style=|https?:", markup)
    linked = re.findall(r'(?:src|href)="([^"]*)"', markup)
    assert {f"/{name}" for name in linked if name != "data:,"} == {*FILES, DATA} - {"/"}


def test_the_command_shows_what_top_does_until_it_is_ended(rl: CommandLine, tasks: Tasks) -> None:
    sending, _ = tasks.running("s3cr3t")
    with Started(rl.folder, "relier_cli.app", "ui", "--addr", "127.0.0.1:0", redis_url=rl.url) as started:
        ports = wait_until(lambda: re.findall(r"http://127.0.0.1:(\d+)/", started.output), 60, "its address")
        connection = http.client.HTTPConnection("127.0.0.1", int(ports[0]), timeout=60)
        connection.request("GET", DATA)
        body = connection.getresponse().read()
        data = json.loads(body)
        schemas.check("top", data)
        assert [task["id"] for task in data["running"]["longest"]] == [sending.task_id]
        assert b"s3cr3t" not in body
        busy = rl("ui", "--addr", f"127.0.0.1:{ports[0]}")
        assert (busy.returncode, busy.stdout) == (1, "")
        assert "Address already in use. Try --addr 127.0.0.1:0." in busy.stderr
        connection.close()
        assert started.terminate() == 0
    assert "Traceback" not in started.output


@pytest.mark.parametrize("addr", ["0.0.0.0:8008", "8008", "127.0.0.1:99999", "127.0.0.1:", "example.com:80"])
def test_an_address_that_will_not_do_is_misuse(addr: str, rl: CommandLine) -> None:
    done = rl("ui", "--addr", addr)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_all_who_ask_while_somebody_looks_get_the_same_answer() -> None:
    looks, go_on, answers = list[int](), threading.Event(), list[object]()

    def look() -> object:
        looks.append(1)
        assert go_on.wait(60)
        raise StoreUnavailableError("away")

    def ask() -> None:
        try:
            together()
        except StoreUnavailableError as error:
            answers.append(error)

    with ThreadPoolExecutor(1) as thread:
        together = Together(thread, look)
        asking = [threading.Thread(target=ask) for _ in range(8)]
        for each in asking:
            each.start()
        wait_until(lambda: all("wait" in _code_of(each) for each in asking), 60, "all to wait")
        go_on.set()
        for each in asking:
            each.join(60)
        assert len(looks) == 1
        ask()  # What was said is no answer to who asks later.

    assert (len(looks), len(answers), len(set(answers))) == (2, 9, 2)


def _code_of(thread: threading.Thread) -> str:
    """Return the name of the function that a thread is in."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame.f_code.co_name if frame is not None else ""
