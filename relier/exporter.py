"""Serves metrics over HTTP: `/metrics` for Prometheus, `/healthz` for whoever watches the process."""

from __future__ import annotations

import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dramatiq import Broker

from relier.collecting import Burning, Collection
from relier.errors import RelierConfigError, RelierStartupError
from relier.metrics import Metrics
from relier.settings import Address, Settings, parse_address
from relier.store import Store

logger = logging.getLogger(__name__)

#: A client that says nothing for so long (s) is left: longer than Prometheus waits between two scrapes.
PATIENCE = 60.0

#: How often (s) the endpoint looks whether it is to end.
LOOK = 0.1

_TEXT = "text/plain; charset=utf-8"


def listening_address(text: str) -> Address:
    """Return host and port of `host:port` or `:port`. Raises `RelierConfigError`."""
    try:
        return parse_address(text, host_needed=False)
    except ValueError:
        raise RelierConfigError(
            f"The metrics address {text!r} is none: host:port, or :port for every interface."
        ) from None


def serve_beside(store: Store, broker: Broker, settings: Settings) -> Exporter | None:
    """Serve at `RELIER_METRICS_ADDR`, where that is set, beside other work of this process.

    An address that is taken is a warning: several resurrectors of one host may share their settings, and one of them
    tells of the whole fleet.
    """
    if settings.metrics_addr is None:
        return None
    try:
        exporter = Exporter(store, broker, settings, listening_address(settings.metrics_addr))
    except RelierStartupError as error:
        logger.warning("No metrics are served here.", extra={"error": str(error)})
        return None
    exporter.start()
    logger.info("Serving metrics.", extra={"url": exporter.url})
    return exporter


class Exporter:
    """The endpoint of one process. It listens from its making on; `start` begins to answer.

    Raises `RelierStartupError` with one line when it cannot listen there.

    Parameters:
      store, broker: what is told.
      address: `host:port`, or `:port` for every interface. Port 0 takes any.
    """

    def __init__(self, store: Store, broker: Broker, settings: Settings, address: Address) -> None:
        collection = Collection(store, broker, settings)
        self.metrics = Metrics(collection.sheet)
        self._burning = Burning(collection.reckon_burns)
        #: Reads the store on one thread, which keeps its connections from scrape to scrape.
        self._reader = ThreadPoolExecutor(1, "relier-metrics")
        self._server = _listen(address, self)

    @property
    def address(self) -> Address:
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    @property
    def url(self) -> str:
        """Where the metrics are; 0.0.0.0 is every interface."""
        host, port = self.address
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"

    def page(self, accept: str) -> tuple[bytes, str]:
        """Return a page of metrics and its content type."""
        return self._reader.submit(self.metrics.page, accept).result()

    def start(self) -> None:
        """Answer from now on, on threads of its own."""
        self._burning.start()
        serve = partial(self._server.serve_forever, LOOK)
        threading.Thread(target=serve, name="relier-exporter", daemon=True).start()

    def stop(self) -> None:
        """Answer no more; returns when nothing is read any more. Not from the thread that serves."""
        self._burning.stop()
        self._server.shutdown()
        self._server.server_close()
        self._reader.shutdown(cancel_futures=True)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    #: Prometheus and its neighbours ask seldom, but perhaps at once.
    request_queue_size = 64

    def __init__(self, address: Address, exporter: Exporter) -> None:
        self.exporter = exporter
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Listen without asking a name server who this host is."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("A scrape was broken off.", exc_info=True)


def _listen(address: Address, exporter: Exporter) -> _Server:
    host, port = address
    try:
        return _Server(address, exporter)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RelierStartupError(f"Metrics cannot be served on {host}:{port}: {reason}.") from None


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE
    protocol_version = "HTTP/1.1"
    server_version = "relier"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer_metrics()
        elif path == "/healthz":
            self._answer(200, b"ok\n", _TEXT)
        else:
            self._answer(404, b"Relier serves /metrics and /healthz.\n", _TEXT)

    do_HEAD = do_GET  # noqa: N815

    def _answer_metrics(self) -> None:
        try:
            page, content_type = self.server.exporter.page(self.headers.get("Accept", ""))
        except Exception:
            logger.exception("Metrics could not be collected.")
            self._answer(500, b"Metrics could not be collected; the log says why.\n", _TEXT)
        else:
            self._answer(200, page, content_type)

    def _answer(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        logger.debug("A request for metrics.", extra={"request": format % arguments})
