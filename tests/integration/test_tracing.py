"""Traces of real processes, as a collector gets them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.harness import ROOT, Harness
from tests.integration.traced import CONSUMER, PRODUCER, SECRET, produce, runs, trace_all, wait_for_runs
from tests.integration.tracing_actors import TracingActors
from tests.otlp import Collector, Span

pytestmark = pytest.mark.parametrize("server", ["embedded"], indirect=True)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def traced(fleet: Harness, collector: Collector) -> Harness:
    return trace_all(fleet, collector)


def test_a_push_and_what_follows_from_it_are_one_trace(traced: Harness, collector: Collector) -> None:
    traced.environ["RELIER_SIGNING_KEYS"] = "k1:" + "long-enough" * 4
    worker = traced.worker(threads=2)
    code = "; ".join(
        [
            f"a.step.push({SECRET!r})",
            f"a.astep.send({SECRET!r})",
            f"a.shaky.push({SECRET!r})",
            f"a.pushing.push({SECRET!r})",
            f"a.step.push_many([a.step.message({SECRET!r}), a.step.message({SECRET!r})])",
            f"dramatiq.pipeline([a.step.message({SECRET!r}), a.step.message()]).run()",
            f"g = dramatiq.group([a.step.message({SECRET!r}), a.step.message({SECRET!r})])",
            f"g.add_completion_callback(a.astep.message({SECRET!r}))",
            "g.run()",
        ]
    )
    produce(traced, collector, code)
    wait_for_runs(collector, step=8, astep=2, shaky=2, pushing=1)
    collector.wait(*["inner"] * 8, *["outer", "aside", "in thread"] * 2)
    spans = collector.spans()

    are_one_tree(spans)
    runs_are_under_their_pushes(spans)
    follow_ups_are_under_the_runs_that_made_them(spans, collector)
    spans_of_the_tasks_code_are_under_its_run(spans, collector)
    a_retry_tells_why_the_run_before_failed(*runs(collector, "shaky"))
    assert {span.attributes["relier.outcome"] for span in runs(collector, "step")} == {"completed"}
    lines_of_the_log_belong_to_spans(spans, worker.text())
    assert not [request for request in collector.requests if SECRET.encode() in request]


def are_one_tree(spans: list[Span]) -> None:
    by_id = {span.span_id: span for span in spans}
    assert len({span.trace_id for span in spans}) == 1
    (root,) = (span for span in spans if not span.parent)
    assert root.name == "request"
    assert all(span.parent in by_id for span in spans if span is not root)


def runs_are_under_their_pushes(spans: list[Span]) -> None:
    by_id = {span.span_id: span for span in spans}
    for run in (span for span in spans if span.kind == CONSUMER):
        push = by_id[run.parent]
        assert (run.name, push.name, push.kind) == ("process default", "send default", PRODUCER)
        assert push.start <= run.start <= run.end
        assert push.attributes.get("messaging.message.id") in (run.attributes["messaging.message.id"], None)
        assert run.attributes["messaging.system"] == push.attributes["messaging.system"] == "dramatiq"
        assert run.attributes["messaging.operation.type"] == "process"
        assert run.attributes["messaging.destination.name"] == "default"
        assert run.attributes["messaging.client.id"].count(":") == 2
        assert run.attributes["relier.fence"] > 0
        assert run.resource["service.name"] == "relier-worker"


def follow_ups_are_under_the_runs_that_made_them(spans: list[Span], collector: Collector) -> None:
    """So the second stage of a pipeline follows the first, and a group's callback its last member."""
    by_id = {span.span_id: span for span in spans}
    pushes = [span for span in spans if span.kind == PRODUCER]
    assert [span.attributes.get("messaging.batch.message_count") for span in pushes].count(2) == 1
    (parent,) = runs(collector, "pushing")
    (pushed,) = (span for span in pushes if span.parent == parent.span_id)
    assert len([span for span in spans if span.parent == pushed.span_id]) == 1
    stages = [span for span in pushes if by_id[span.parent].attributes.get("relier.actor") == "step"]
    assert {by_id[span.parent].kind for span in stages} == {CONSUMER}
    assert sorted(str(span.attributes["relier.actor"]) for span in stages) == ["astep", "step"]


def spans_of_the_tasks_code_are_under_its_run(spans: list[Span], collector: Collector) -> None:
    arun = {span.span_id for span in runs(collector, "astep")}
    outer = {span.span_id for span in spans if span.name == "outer" and span.parent in arun}
    assert len(outer) == 2
    assert {span.parent for span in spans if span.name == "aside"} == outer
    assert {span.parent for span in spans if span.name == "in thread"} == outer


def a_retry_tells_why_the_run_before_failed(first: Span, second: Span) -> None:
    """Without the exception's text."""
    assert (first.attributes["relier.attempt"], first.attributes["relier.outcome"], first.links) == (0, "retry", [])
    assert first.is_error
    assert (
        first.status
        == first.attributes["error.type"]
        == first.events["exception"]["exception.type"]
        == "ConnectionError"
    )
    assert first.events["exception"]["exception.stacktrace"].endswith("ConnectionError, from KeyError")
    assert "in shaky" in first.events["exception"]["exception.stacktrace"]
    assert (second.attributes["relier.attempt"], second.links, second.is_error) == (1, [first.span_id], False)


def lines_of_the_log_belong_to_spans(spans: list[Span], log: str) -> None:
    (root,) = (span for span in spans if not span.parent)
    lines = [json.loads(line) for line in log.splitlines() if '"in a span"' in line]
    inner = {span.span_id for span in spans if span.name == "inner"}
    assert {line["span_id"] for line in lines} == inner and {line["trace_id"] for line in lines} == {root.trace_id}


def test_a_run_after_a_crash_refers_to_the_one_that_was_lost(traced: Harness, collector: Collector) -> None:
    gate = traced.gate("after crash")
    worker = traced.worker(threads=1)
    other = traced.worker(threads=1)
    resurrector = traced.resurrector()
    for process in (worker, other, resurrector):
        process.wait_settled_in()
    produce(traced, collector, f"a.slow.push({gate!r})")
    (began,) = traced.wait(lambda: traced.effects("began"), what="a run")
    os.kill(began.pid, signal.SIGKILL)
    traced.wait(lambda: len(traced.effects("began")) == 2, what="another run")
    traced.open_gate("after crash")
    wait_for_runs(collector, slow=1)
    collector.wait("resurrect default", "bury")

    push, (run,), back = collector.one("send default"), runs(collector, "slow"), collector.one("resurrect default")
    bury = collector.one("bury")
    # The span of the killed run went with its process. What refers to it knows its id.
    assert run.parent == back.parent == push.span_id
    assert len(run.links) == 1 and run.links[0] not in (push.span_id, back.span_id, run.span_id)
    assert run.events["resurrected"] == {"relier.crashes": 1}
    assert run.events["checkpoint"]["relier.bytes"] > 0
    assert (run.attributes["relier.crashes"], run.attributes["relier.outcome"]) == (1, "completed")
    assert (back.attributes["relier.crashes"], back.kind) == (1, PRODUCER)
    assert bury.attributes["relier.tasks"] == 1 and bury.trace_id != run.trace_id
    assert bury.resource["service.name"] == back.resource["service.name"] == "relier-resurrector"
    assert bury.start <= back.start <= run.end


def test_a_worker_that_ends_exports_what_it_has(traced: Harness, collector: Collector) -> None:
    """Also the run that it hands over while the task's code goes on, deaf to the end."""
    traced.environ["OTEL_BSP_SCHEDULE_DELAY"] = "600000"
    worker = traced.worker(threads=2, graceful_shutdown_timeout=0.5)
    produce(traced, collector, f"a.step.push({SECRET!r}); a.slow.push({traced.gate('never')!r})")
    traced.wait(lambda: traced.effects("began"), what="a run")
    traced.wait(lambda: traced.store.counters().get("completed") == 1, what="an end")
    assert runs(collector, "step") == []

    assert worker.stop() == 0

    (done,), (handed,) = runs(collector, "step"), runs(collector, "slow")
    assert done.attributes["relier.outcome"] == "completed"
    assert (handed.attributes["relier.outcome"], handed.attributes["relier.reason"]) == ("handed over", "shutdown")
    assert not handed.is_error


def test_a_collector_that_is_away_delays_nothing_and_is_told_once(traced: Harness, collector: Collector) -> None:
    collector.close()
    traced.environ["OTEL_EXPORTER_OTLP_TIMEOUT"] = "1"
    worker = traced.worker(threads=2)
    worker.wait_ready()
    step = TracingActors(traced.broker).step
    for _ in range(3):
        step.push(SECRET)
    traced.wait(lambda: traced.store.counters().get("completed") == 3, what="three ends")
    traced.wait(lambda: "Spans cannot be exported" in worker.text(), what="the warning")
    assert worker.stop() == 0
    assert worker.text().count("Spans cannot be exported") == 1
    assert "opentelemetry" not in worker.text()


_OFF = """
import builtins, sys
importing, found = builtins.__import__, set()
def watched(name, globals=None, *more):
    if name.partition(".")[0] == "opentelemetry":
        found.add((globals or {{}}).get("__name__", "").partition(".")[0])
    return importing(name, globals, *more)
builtins.__import__ = watched
from relier import rl_actor
from relier.testing import Testing
import relier.boot, relier.resurrector, relier_cli.app
with Testing(redis_url={url!r}) as tasks:
    @rl_actor
    def work(ctx):
        ctx.set_partial_sync(1)
    work.push()
    tasks.finish()
print(sorted(found - {{"opentelemetry"}}), "relier.tracing" in sys.modules)
import relier.tracing
print(sorted(found - {{"opentelemetry"}}))
"""


def test_without_traces_opentelemetry_is_not_imported(fleet: Harness) -> None:
    """By Relier, that is: redis-py imports its part for metrics wherever it is installed."""
    command = [sys.executable, "-c", _OFF.format(url=fleet.server.url)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines() == ["['redis'] False", "['redis', 'relier']"], done.stderr


@pytest.mark.parametrize("what", ["worker", pytest.param("resurrector", marks=pytest.mark.slow)])
def test_a_missing_extra_is_one_line_at_the_start(what: str, fleet: Harness, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['opentelemetry'] = None")
    fleet.environ |= {"RELIER_OTEL_ENABLED": "true", "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    process = fleet.worker() if what == "worker" else fleet.resurrector()
    process.popen.wait(60)
    assert process.popen.returncode
    (line,) = [line for line in process.text().splitlines() if "MainProcess" not in line]
    assert line.startswith("RELIER_OTEL_ENABLED is true, but OpenTelemetry is not installed (opentelemetry).")
