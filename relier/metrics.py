"""Pages of metrics: sheets of samples in the two text formats that Prometheus reads.

Written here because a page has thousands of lines: prometheus_client, whose parsers the tests ask, takes five times as
long to write them. https://prometheus.io/docs/instrumenting/exposition_formats and https://prometheus.io/docs/specs/om
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import accumulate

from relier.measures import Sheet, Value
from relier.metric_table import METRICS, Metric
from relier.store.statistics import BOUNDS, Histogram

#: A sheet is told again for so long (s): several who scrape at once cost the store one reading.
FRESH = 1.0

#: The type of Prometheus' own format, and of OpenMetrics, which it asks for first.
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_LIMITS = (*map(repr, BOUNDS), "+Inf")
_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Metrics:
    """Turns sheets into pages.

    Parameters:
      read: reads a sheet; called on one thread at a time.
    """

    def __init__(self, read: Callable[[], Sheet]) -> None:
        self._read = read
        self._reading = threading.Lock()
        self._sheet = Sheet()
        self._read_at = float("-inf")

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """Return a page and its content type: OpenMetrics for those who accept it, else Prometheus' text format."""
        with self._reading:
            if time.monotonic() - self._read_at > FRESH:
                self._sheet = self._read()
                self._read_at = time.monotonic()
            sheet = self._sheet
        is_openmetrics = "application/openmetrics-text" in accept
        return page_of(sheet, is_openmetrics), OPENMETRICS if is_openmetrics else TEXT


def page_of(sheet: Sheet, is_openmetrics: bool) -> bytes:
    """Return each family that has samples, in the order of the table."""
    lines: list[str] = []
    for metric in METRICS:
        if metric.name in sheet.samples:
            # OpenMetrics names a family of counters without their ending.
            family = metric.name.removesuffix("_total") if is_openmetrics else metric.name
            lines += (f"# HELP {family} {metric.help.translate(_ESCAPED)}", f"# TYPE {family} {metric.type}")
            for labels, value in sheet.samples[metric.name]:
                lines += _lines(metric, labels, value)
    lines += ["# EOF"] * is_openmetrics
    return "".join(f"{line}\n" for line in lines).encode()


def _lines(metric: Metric, labels: tuple[str, ...], value: Value) -> Iterator[str]:
    named = ",".join(f'{name}="{text.translate(_ESCAPED)}"' for name, text in zip(metric.labels, labels, strict=True))
    if not isinstance(value, Histogram):
        yield f"{metric.name}{{{named}}} {float(value)!r}" if named else f"{metric.name} {float(value)!r}"
        return
    begin = f"{metric.name}_bucket{{{named},le="
    for limit, count in zip(_LIMITS, accumulate(value.counts), strict=True):
        yield f'{begin}"{limit}"}} {count}'
    yield f"{metric.name}_count{{{named}}} {value.count}"
    yield f"{metric.name}_sum{{{named}}} {value.sum!r}"
