"""Serves the page and its data, to browsers of this machine that were not sent by another site.

It only reads, and what it tells has neither arguments nor secrets. It listens on loopback; a page of another site
cannot read it either: a name that was made to point here is refused (`Host`), and so is whatever another origin asks
for (`Sec-Fetch-Site`, `Origin`). The page itself runs no code but its own file, and shows what it gets as text.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from relier.errors import RelierError

logger = logging.getLogger(__name__)

#: Returns what is shown. Raises `RelierError` when there is nothing to show.
Data = Callable[[], Any]

#: The files of the page, by path.
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/view.js": ("view.js", "text/javascript; charset=utf-8"),
}
DATA = "/data.json"

#: With every answer.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
#: How long (s) a client may take to send its request.
PATIENCE = 10.0


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, reached by itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Server(ThreadingHTTPServer):
    """Listens on loopback.

    Parameters:
      address: host and port; 0 takes a free one. Raises `ValueError` for any other host than loopback.
      data: returns what is shown; called by the threads that answer.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], data: Data) -> None:
        if not is_loopback(address[0]):
            raise ValueError(f"{address[0]} is not loopback")
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.data = data
        self.files = {
            path: resources.files(__package__).joinpath(name).read_bytes() for path, (name, _) in FILES.items()
        }
        super().__init__(address, Handler)

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}/" if self.address_family == socket.AF_INET6 else f"http://{host!s}:{port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none of anybody's business."""
        logger.debug("A request was not answered.", exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Server
    server_version, sys_version = "relier", ""
    timeout = PATIENCE

    def do_GET(self) -> None:
        self._answer(*self._found())

    def do_HEAD(self) -> None:
        self.do_GET()

    def _found(self) -> tuple[HTTPStatus, str, bytes]:
        if not self._is_own():
            return HTTPStatus.FORBIDDEN, "text/plain; charset=utf-8", b"Not for other sites.\n"
        path = urlsplit(self.path).path
        if path in FILES:
            return HTTPStatus.OK, FILES[path][1], self.server.files[path]
        if path != DATA:
            return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"There is / and /data.json.\n"
        status, data = self._looked()
        return status, "application/json", json.dumps(data).encode()

    def _is_own(self) -> bool:
        """Whether it was asked for by the page itself, by a person, or by a program: not by another site."""
        origin = self.headers.get("Origin")
        named = [f"//{self.headers.get('Host', '')}", *([origin] if origin is not None else [])]
        try:
            hosts = [urlsplit(name).hostname or "" for name in named]
        except ValueError:
            return False
        return all(map(is_loopback, hosts)) and self.headers.get("Sec-Fetch-Site") in (None, "none", "same-origin")

    def _looked(self) -> tuple[HTTPStatus, Any]:
        try:
            return HTTPStatus.OK, self.server.data()
        except RelierError as error:
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)}
        except Exception as error:
            logger.exception("The system could not be looked at.")
            return HTTPStatus.INTERNAL_SERVER_ERROR, {"error": type(error).__name__}

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep what a browser asks for every two seconds out of the terminal."""
