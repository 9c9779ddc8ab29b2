"""Metrics for Prometheus: what the store knows, in the text formats that Prometheus reads.

One exporter reads the store for the whole fleet; no worker serves anything. No other module imports prometheus_client.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from relier.measures import Sheet
from relier.metric_table import METRICS, Metric
from relier.store.statistics import BOUNDS, Histogram

#: A sheet is told again for so long (s): several who scrape at once cost the store one reading.
FRESH = 1.0

_LIMITS = (*map(floatToGoString, BOUNDS), "+Inf")


class Metrics(Collector):
    """Turns sheets into pages.

    Parameters:
      read: reads a sheet; called on one thread at a time.
    """

    def __init__(self, read: Callable[[], Sheet]) -> None:
        self._read = read
        self._reading = threading.Lock()
        self._sheet = Sheet()
        self._read_at = float("-inf")
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """Return a page and its content type: OpenMetrics for those who accept it, else Prometheus' text format."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def describe(self) -> list[Family]:
        """Tell nothing before the first scrape: the store may be away."""
        return []

    def collect(self) -> Iterator[Family]:
        """Yield each family that has samples, in the order of the table."""
        with self._reading:
            if time.monotonic() - self._read_at > FRESH:
                self._sheet = self._read()
                self._read_at = time.monotonic()
            sheet = self._sheet
        for metric in METRICS:
            if metric.name in sheet.samples:
                yield _family(metric, sheet)


def _family(metric: Metric, sheet: Sheet) -> Family:
    samples = sheet.samples[metric.name]
    if metric.type == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in samples:
            if isinstance(value, Histogram):
                histogram.add_metric(labels, _buckets(value), value.sum)
        return histogram
    kind = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for labels, value in samples:
        if not isinstance(value, Histogram):
            family.add_metric(labels, value)
    return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    found, total = [], 0
    for limit, count in zip(_LIMITS, histogram.counts, strict=True):
        total += count
        found.append((limit, float(total)))
    return found
