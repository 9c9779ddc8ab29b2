"""A collector of traces for tests: takes OTLP over HTTP, and decodes it with the installed package."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.waiting import wait_until


@dataclass(frozen=True)
class Span:
    """What tests look at."""

    name: str
    kind: int  #: 1 internal, 3 client, 4 producer, 5 consumer
    trace_id: str
    span_id: str
    parent: str
    start: int
    end: int
    attributes: dict[str, Any]
    resource: dict[str, Any]
    links: list[str]  #: the ids of the spans
    events: dict[str, dict[str, Any]]
    is_error: bool
    status: str


class Collector:
    """Takes spans on a free port. Close it."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                collector.requests.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def spans(self) -> list[Span]:
        """Return every span that came, in the order of their beginning."""
        found = []
        for request in list(self.requests):
            for of_resource in ExportTraceServiceRequest.FromString(request).resource_spans:
                resource = _values(of_resource.resource.attributes)
                found += [_span(span, resource) for scope in of_resource.scope_spans for span in scope.spans]
        return sorted(found, key=lambda span: span.start)

    def wait(self, *names: str, timeout: float = 60.0) -> list[Span]:
        """Wait until these spans have come, each as often as it is named; returns those of these names."""

        def enough() -> list[Span]:
            seen = [span for span in self.spans() if span.name in names]
            return seen if all([s.name for s in seen].count(n) >= names.count(n) for n in names) else []

        try:
            return wait_until(enough, timeout, "spans")
        except AssertionError:
            came = [(span.name, span.attributes.get("relier.outcome")) for span in self.spans()]
            raise AssertionError(f"of {names} came only {came}") from None

    def one(self, name: str, matches: Callable[[Span], bool] = lambda span: True) -> Span:
        (found,) = [span for span in self.spans() if span.name == name and matches(span)]
        return found


def _span(span: Any, resource: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes=_values(span.attributes),
        resource=resource,
        links=[link.span_id.hex() for link in span.links],
        events={event.name: _values(event.attributes) for event in span.events},
        is_error=span.status.code == 2,
        status=span.status.message,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}
