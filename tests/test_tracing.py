"""Traces, without a collector: what a stamp carries, what is never in a span, and the names of the conventions."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from relier import tracing
from relier.span_export import QuietExporter, delay_ms, resource_attributes, traces_url
from relier.stacks import FRAMES_KEPT, frames_of
from tests.integration.harness import ROOT


def test_the_names_are_those_of_the_installed_conventions() -> None:
    ours = {
        "MESSAGING_SYSTEM": tracing.SYSTEM,
        "MESSAGING_OPERATION_NAME": tracing.OPERATION,
        "MESSAGING_OPERATION_TYPE": tracing.OPERATION_TYPE,
        "MESSAGING_DESTINATION_NAME": tracing.DESTINATION,
        "MESSAGING_MESSAGE_ID": tracing.MESSAGE_ID,
        "MESSAGING_BATCH_MESSAGE_COUNT": tracing.COUNT,
        "MESSAGING_MESSAGE_BODY_SIZE": tracing.BODY_SIZE,
        "MESSAGING_CLIENT_ID": tracing.CLIENT_ID,
    }
    assert {name: getattr(messaging_attributes, name) for name in ours} == ours


@pytest.mark.parametrize(
    "option",
    [
        None,
        "text",
        {},
        {"tp": 5},
        {"tp": "nonsense"},
        {"tp": "0" * 10_000},
        {"tp": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
    ],
)
def test_a_stamp_without_a_good_context_gives_none(option: Any) -> None:
    assert not tracing._context_of(option)


def test_a_stamp_carries_a_context_and_its_state() -> None:
    option = {"tp": "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "ts": "vendor=1"}
    span = trace.get_current_span(tracing._context_of(option))
    headers = tracing._headers(span)
    assert (headers["traceparent"], headers["tracestate"]) == (option["tp"], option["ts"])


def test_a_state_that_is_too_long_does_not_cost_the_context() -> None:
    state = ",".join(f"vendor{i}={'x' * 200}" for i in range(20))
    parent = TraceContextTextMapPropagator().extract(
        {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "tracestate": state}
    )
    headers = tracing._headers(trace.get_current_span(parent))

    option = {field: headers[name] for field, name in tracing.HEADERS.items() if name in headers}

    assert sum(map(len, option.values())) < tracing.LONGEST
    assert trace.get_current_span(tracing._context_of(option)).get_span_context().trace_id == int("a" * 32, 16)


def test_of_an_exception_only_types_and_frames_are_recorded() -> None:
    secret = "hunter" + "2"
    try:
        try:
            raise KeyError(secret)
        except KeyError:
            raise ValueError(f"bad {secret}")  # noqa: B904
    except ValueError as error:
        frames = frames_of(error)
    assert secret not in frames
    assert "in test_of_an_exception_only_types" in frames
    assert frames.endswith("\nValueError, from KeyError")


def test_the_frames_of_an_endless_recursion_are_cut() -> None:
    def deeper() -> None:
        deeper()

    with pytest.raises(RecursionError) as raised:
        deeper()
    assert len(frames_of(raised.value)) < FRAMES_KEPT + 100


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (None, None),
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("https://c/otlp/", "https://c/otlp/v1/traces"),
        ("http://c:4318/v1/traces", "http://c:4318/v1/traces"),
    ],
)
def test_the_endpoint_is_a_base_or_the_whole_address(endpoint: str | None, url: str | None) -> None:
    assert traces_url(endpoint) == url


def test_opentelemetrys_own_variables_win() -> None:
    assert resource_attributes("worker", {})["service.name"] == "relier-worker"
    assert "service.name" not in resource_attributes("worker", {"OTEL_SERVICE_NAME": "shop"})
    assert "service.name" not in resource_attributes("worker", {"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop"})
    assert (delay_ms({}), delay_ms({"OTEL_BSP_SCHEDULE_DELAY": "5"})) == (1000.0, None)


@pytest.mark.parametrize("raises", [False, True])
def test_an_exporter_that_fails_is_told_once(caplog: pytest.LogCaptureFixture, raises: bool) -> None:
    class Away:
        def export(self, spans: list[int]) -> Any:
            if raises:
                raise ConnectionRefusedError
            return type("Result", (), {"value": 1})()

    caplog.set_level(logging.WARNING, "relier.span_export")
    exporter = QuietExporter(Away())
    for _ in range(3):
        exporter.export([1, 2])
    assert [vars(record)["lost"] for record in caplog.records] == [2]


_BROKEN = """
import logging
import os
import subprocess
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

class Broken(SpanProcessor):
    def on_{when}(self, *args, **kwargs):
        raise OSError("no room for spans")

provider = TracerProvider()
provider.add_span_processor(Broken())
trace.set_tracer_provider(provider)
from relier import rl_actor
from relier.testing import Testing
with Testing(fail_fast=False, redis_url={url!r}, otel_enabled=True) as tasks:
    @rl_actor(max_retries=0)
    def work(ctx):
        ctx.set_partial_sync(1)
        if ctx.args:
            raise ValueError
    work.push(), work.push_many([work.message(), work.message(1)])
    tasks.finish()
    counters = tasks.store.counters()
    print(counters["completed"], counters["dead"])
"""


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
@pytest.mark.parametrize("when", [pytest.param("start", marks=pytest.mark.slow), "end"])
def test_a_provider_that_breaks_breaks_no_task(store_url: str, when: str) -> None:
    code = _BROKEN.replace("ctx.args", "args").replace("work(ctx)", "work(*args, ctx)")
    done = subprocess.run(
        [sys.executable, "-c", code.format(when=when, url=store_url)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "2 1\n", done.stderr
    assert "A span could not be made; the task goes on without it." in done.stderr
