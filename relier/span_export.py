"""How spans leave our processes: where to, as whose, how often, and what is said while nobody takes them."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from relier.seldom import Seldom

__all__ = ["QuietExporter", "delay_ms", "resource_attributes", "traces_url"]

logger = logging.getLogger(__name__)

#: How long (ms) an ended span waits at most until it is exported: what a killed process takes with it.
DELAY_MS = 1000.0
#: How often (s) one warning comes while nothing can be exported.
WARNING_INTERVAL = 60.0


class QuietExporter:
    """Exports as another one does. While that fails it says so once a minute, instead of at each try.

    Parameters:
      exporter: one of OpenTelemetry's.
    """

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self._seldom = Seldom(WARNING_INTERVAL)
        self._lost = 0
        logging.getLogger(type(exporter).__module__.partition(".")[0] + ".exporter").setLevel(logging.CRITICAL)

    def export(self, spans: Sequence[Any]) -> Any:
        try:
            result = self._exporter.export(spans)
            failed = bool(getattr(result, "value", 0))
        except Exception:  # Older ones raise what the connection raises.
            logger.debug("Spans cannot be exported.", exc_info=True)
            result, failed = None, True
        if failed:
            self._lost += len(spans)
            if self._seldom.may_say(""):
                logger.warning("Spans cannot be exported; tasks go on without them.", extra={"lost": self._lost})
        return result

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return bool(self._exporter.force_flush(timeout_millis))

    def shutdown(self) -> None:
        self._exporter.shutdown()


def traces_url(endpoint: str | None) -> str | None:
    """Return the address for traces; None: OpenTelemetry's own variables and defaults decide."""
    if endpoint is None:
        return None
    return endpoint if endpoint.endswith("/v1/traces") else f"{endpoint.rstrip('/')}/v1/traces"


def delay_ms(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return how long (ms) spans are collected; None: OpenTelemetry's own variable decides."""
    return None if environ.get("OTEL_BSP_SCHEDULE_DELAY") else DELAY_MS


def resource_attributes(role: str, environ: Mapping[str, str] = os.environ) -> dict[str, str | int]:
    """Return who this process is; the name of the service can be set by OpenTelemetry's own variables."""
    host, pid = socket.gethostname(), os.getpid()
    found: dict[str, str | int] = {"service.instance.id": f"{host}:{pid}", "host.name": host, "process.pid": pid}
    named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return found if named else {"service.name": f"relier-{role}", **found}
