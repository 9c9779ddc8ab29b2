"""Fleets that make traces, and what a collector got of them."""

from __future__ import annotations

from tests.integration.harness import Harness
from tests.otlp import Collector, Span
from tests.waiting import wait_until

#: What no span may contain.
SECRET = "hunter" + "2hunter"
PRODUCER, CONSUMER = 4, 5

_APPLICATION = """
import asyncio
import dramatiq
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from tests.integration.tracing_actors import ACTORS as a
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(endpoint="{url}/v1/traces")))
trace.set_tracer_provider(provider)
with trace.get_tracer("web").start_as_current_span("request"):
    {code}
"""


def trace_all(fleet: Harness, collector: Collector) -> Harness:
    """Let every process of a fleet make traces; its workers have `tests.integration.tracing_actors` as well."""
    fleet.actor_module += ",tests.integration.tracing_actors"
    fleet.environ |= {
        "RELIER_OTEL_ENABLED": "true",
        "RELIER_OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    return fleet


def produce(fleet: Harness, collector: Collector, code: str) -> None:
    """Run code with the actors as `a` in an application that makes traces, within a span `request`."""
    begin = "" if fleet.actor_module.startswith("tests.integration") else f"import {fleet.actor_module.split(',')[0]}"
    process = fleet.script(begin + _APPLICATION.format(url=collector.url, code=code))
    assert process.popen.wait(60) == 0, process.text()


def runs(collector: Collector, actor: str) -> list[Span]:
    """Return the spans of an actor's runs, in the order of their beginning."""
    return [s for s in collector.spans() if s.kind == CONSUMER and s.attributes["relier.actor"] == actor]


def wait_for_runs(collector: Collector, **counts: int) -> None:
    """Wait until so many spans of each actor's runs have come."""
    wait_until(
        lambda: all(len(runs(collector, actor)) >= count for actor, count in counts.items()), 60, f"runs {counts}"
    )
