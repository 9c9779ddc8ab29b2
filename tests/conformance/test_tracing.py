"""A trace goes through every broker, and through what the store keeps meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.topologies import where
from tests.integration.harness import Harness
from tests.integration.traced import PRODUCER, SECRET, produce, runs, trace_all, wait_for_runs
from tests.otlp import Collector


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@where(["rabbitmq", "plain-redis"])
def test_retries_delays_and_follow_ups_stay_in_the_trace_of_their_push(fleet: Harness, collector: Collector) -> None:
    trace_all(fleet, collector)
    fleet.worker(threads=2)
    code = "; ".join(
        [
            f"a.shaky.push({SECRET!r})",
            f"a.step.send_with_options(args=({SECRET!r},), delay=50)",
            f"dramatiq.pipeline([a.step.message({SECRET!r}), a.astep.message()]).run()",
            f"a.report_on.push({SECRET!r})",
            f"asyncio.run(a.astep.apush({SECRET!r}))",
        ]
    )
    produce(fleet, collector, code)
    wait_for_runs(collector, shaky=2, step=2, astep=2, report_on=1)

    spans = collector.spans()
    by_id = {span.span_id: span for span in spans}
    (root,) = (span for span in spans if not span.parent)
    assert root.name == "request"
    assert {span.trace_id for span in spans} == {root.trace_id}
    for actor in ("shaky", "step", "astep", "report_on"):
        for run in runs(collector, actor):
            assert by_id[run.parent].kind == PRODUCER
            assert by_id[run.parent].attributes["relier.actor"] == actor
    first, second = runs(collector, "shaky")
    assert first.parent == second.parent
    assert second.links == [first.span_id]
    assert not [request for request in collector.requests if SECRET.encode() in request]
