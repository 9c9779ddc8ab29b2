"""The pages of metrics: what both official parsers read of them, and the endpoint that serves them."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from dramatiq import Message
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from relier.account import COUNTERS
from relier.brokers.redis import RelierRedisBroker
from relier.collecting import Collection
from relier.errors import RelierConfigError, RelierStartupError
from relier.exporter import Exporter, listening_address, serve_beside
from relier.measures import Sheet
from relier.metric_table import DECISIONS, EVENTS, METRICS, OF_TASKS, OUTCOMES
from relier.metrics import Metrics, page_of
from relier.settings import Settings
from relier.store import Store
from relier.store.holds import Hold
from relier.store.permissions import RefusedError
from relier.store.statistics import Histogram
from tests import sources
from tests.cli.conftest import Tasks
from tests.conftest import PrivateServers, SharedServers, skip
from tests.servers import RedisServer
from tests.waiting import wait_until

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.fixture
def server(request: pytest.FixtureRequest, servers: SharedServers) -> RedisServer:
    """One kind of server is enough here."""
    try:
        return servers.store("embedded")
    except sources.Unavailable as error:
        skip(request, error)


@pytest.fixture
def tasks(store: Store) -> Tasks:
    told = {"role": "worker", "host": "here", "pid": 1, "queues": ["default"], "threads": 8}
    store.fleet.register(Tasks.worker, told)
    return Tasks(store)


@pytest.fixture
def broker(settings: Settings) -> Iterator[RelierRedisBroker]:
    broker = RelierRedisBroker(settings=settings)
    yield broker
    broker.close()


@pytest.fixture
def collection(store: Store, broker: RelierRedisBroker, settings: Settings) -> Collection:
    return Collection(store, broker, settings)


def samples(page: bytes, parse: Callable[[str], Any] = parse_text) -> dict[tuple[Any, ...], float]:
    """Return the values of a page by name and sorted labels."""
    found: dict[tuple[Any, ...], float] = {}
    for family in parse(page.decode()):
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in found, f"twice on the page: {key}"
            found[key] = sample.value
    return found


def _openmetrics(page: bytes) -> list[Family]:
    return list(parse_openmetrics(page.decode()))  # type: ignore[no-untyped-call]


def populate(tasks: Tasks) -> None:
    tasks.completed()
    tasks.dead(1, reason="KeyError")
    tasks.discarded()
    pushed = replace(tasks.message(), created=time.time() - 1.0)
    tasks.store.tasks.claim(tasks.worker, pushed, b"n", 0, slot_free=True)
    tasks.scheduled()
    tasks.store.fleet.hold(Hold("queue", "low_priority", 0.0, "me"))


def test_both_official_parsers_read_the_same_numbers(collection: Collection, tasks: Tasks) -> None:
    populate(tasks)
    metrics = Metrics(collection.sheet)
    text, text_type = metrics.page()
    openmetrics, openmetrics_type = metrics.page(OPENMETRICS)
    assert text_type.startswith("text/plain; version=0.0.4")
    assert openmetrics_type.startswith("application/openmetrics-text; version=1.0.0")
    assert samples(text) == samples(openmetrics, parse_openmetrics)


@pytest.mark.parametrize("queue", ['a"b', "back\\slash", "two\nlines", "größe", "", "{le=", "a\\nb"])
def test_a_name_may_have_any_characters(queue: str) -> None:
    sheet = Sheet()
    sheet.put("relier_queue_depth", 3, queue)
    sheet.put("relier_run_seconds", Histogram(), queue, "actor")
    for found in (samples(page_of(sheet, False)), samples(page_of(sheet, True), parse_openmetrics)):
        assert found["relier_queue_depth", ("queue", queue)] == 3
        assert found["relier_run_seconds_count", ("actor", "actor"), ("queue", queue)] == 0


@pytest.mark.parametrize("value", [0, 1, 0.001, 1234567.5, 1e17, 2**53, float("inf")])
def test_a_number_is_read_as_it_was(value: float) -> None:
    sheet = Sheet()
    sheet.put("relier_tasks_waiting", value)
    assert samples(page_of(sheet, False)) == {("relier_tasks_waiting",): value}
    assert samples(page_of(sheet, True), parse_openmetrics) == {("relier_tasks_waiting",): value}


def test_what_happened_is_told(collection: Collection, tasks: Tasks) -> None:
    populate(tasks)
    found = samples(Metrics(collection.sheet).page()[0])
    task = (("actor", "work"), ("queue", "default"))
    outcomes = {name: found["relier_tasks_total", task[0], ("outcome", name), task[1]] for name in OUTCOMES}
    assert outcomes == {"completed": 1, "dead": 1, "discarded": 1}
    assert found["relier_tasks_accepted_total", *task] == 5
    assert found["relier_failures_total", *task] == 1
    assert found["relier_dead_lettered_total", *task, ("reason", "KeyError")] == 1
    assert found["relier_dead_letters", *task, ("reason", "KeyError")] == 1
    assert found["relier_discarded_total", *task, ("reason", "skipped")] == 1
    assert found["relier_tasks_waiting",] == 1
    assert found["relier_queue_wait_seconds_count", *task] == 1
    assert found["relier_run_seconds_count", *task] == 2
    assert found["relier_run_seconds_bucket", task[0], ("le", "+Inf"), task[1]] == 2
    assert found["relier_queue_paused", ("queue", "low_priority")] == 1
    assert found["relier_queue_paused", ("queue", "default")] == 0
    assert found["relier_queue_consumers", ("queue", "default")] == 1
    assert found["relier_workers", ("state", "silent")] == 1
    assert found["relier_up",] == found["relier_broker_up",] == 1
    assert found["relier_store_memory_bytes",] > 0


def test_the_depth_of_a_queue_and_its_oldest_message_are_told(
    store: Store, broker: RelierRedisBroker, settings: Settings
) -> None:
    broker.declare_queue("default")
    message = Tasks(store).message()
    for _ in range(3):
        broker.enqueue(Message.decode(message.body).copy())
    metrics = Metrics(Collection(store, broker, settings).sheet)
    found = samples(metrics.page()[0])
    assert found["relier_queue_depth", ("queue", "default")] >= 1
    assert found["relier_queue_oldest_age_seconds", ("queue", "default")] > 0
    assert found["relier_queue_depth", ("queue", "high_priority")] == 0
    assert found["relier_queue_oldest_age_seconds", ("queue", "high_priority")] == 0


def test_every_family_is_one_of_the_table_with_its_type_and_labels(collection: Collection, tasks: Tasks) -> None:
    populate(tasks)
    collection.reckon_burns()
    table = {metric.name: metric for metric in METRICS}
    told = _openmetrics(Metrics(collection.sheet).page(OPENMETRICS)[0])
    for family in told:
        metric = table.pop(family.name + "_total" * (family.type == "counter"))
        assert (family.type, family.documentation) == (metric.type, metric.help)
        assert {frozenset(sample.labels) - {"le"} for sample in family.samples} == {frozenset(metric.labels)}
    nothing_of = {"relier_tasks_parked", "relier_tasks_in_flight", "relier_longest_run_seconds"}
    nothing_of |= {"relier_admission_used", "relier_admission_limit", "relier_slo_latency_seconds"}
    assert set(table) == nothing_of, "of these there is nothing in this store"


def test_every_counter_of_the_store_has_one_metric() -> None:
    told = [*OUTCOMES, *OF_TASKS, *DECISIONS, *EVENTS]
    assert sorted(told) == sorted([*COUNTERS, "slow"]), "slow tasks are counted by actor alone"


def test_names_follow_the_conventions() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"relier_[a-z_]+[a-z]", metric.name)
        assert metric.name.endswith("_total") == (metric.type == "counter")
        assert metric.type != "histogram" or metric.name.endswith("_seconds")
        assert metric.help.endswith(".")


def test_a_store_that_does_not_answer_is_down_and_has_no_numbers(private_server: PrivateServers) -> None:
    server = private_server()
    settings = Settings(redis_url=server.url)
    store = Store.from_settings(settings)
    broker = RelierRedisBroker(settings=settings)
    metrics = Collection(store, broker, settings)
    assert dict(metrics.sheet().samples["relier_up"]) == {(): 1}
    server.kill()
    assert set(metrics.sheet().samples) == {"relier_up", "relier_build_info", "relier_collection_seconds"}
    assert dict(metrics.sheet().samples["relier_up"]) == {(): 0}
    server.restart()
    assert wait_until(lambda: dict(metrics.sheet().samples["relier_up"]) == {(): 1})
    broker.close()
    store.close()


def test_a_store_that_goes_away_during_a_scrape_leaves_no_half_of_the_numbers(
    collection: Collection, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(store.admissions, "usages", away)
    found = collection.sheet().samples
    assert set(found) == {"relier_up", "relier_build_info", "relier_collection_seconds"}
    assert dict(found["relier_up"]) == {(): 0}


def test_what_an_acl_forbids_costs_only_that(
    collection: Collection, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RefusedError("Redis does not let its user 'viewer' run INFO.")

    monkeypatch.setattr(store.runner, "everywhere", refuse)
    found = collection.sheet().samples
    assert "relier_store_memory_bytes" not in found
    assert "relier_queue_depth" in found
    assert dict(found["relier_up"]) == {(): 1}


def test_a_broker_that_does_not_answer_costs_only_the_depths(
    store: Store, settings: Settings, private_server: PrivateServers
) -> None:
    elsewhere = private_server()
    broker = RelierRedisBroker(settings=Settings(redis_url=elsewhere.url))
    sheet = Collection(store, broker, settings)
    assert dict(sheet.sheet().samples["relier_broker_up"]) == {(): 1}
    elsewhere.kill()
    found = sheet.sheet().samples
    assert dict(found["relier_broker_up"]) == {(): 0}
    assert "relier_queue_depth" not in found
    assert dict(found["relier_up"]) == {(): 1}
    assert "relier_queue_consumers" in found
    broker.close()


def test_counters_are_the_same_for_every_exporter(
    store: Store, broker: RelierRedisBroker, settings: Settings, tasks: Tasks
) -> None:
    populate(tasks)

    exporters = [Collection(store, broker, settings), Collection(store, broker, settings)]

    def counters(collection: Collection) -> dict[tuple[Any, ...], float]:
        found = samples(Metrics(collection.sheet).page()[0])
        return {key: value for key, value in found.items() if key[0].endswith(("_total", "_count", "_bucket", "_sum"))}

    assert counters(exporters[0])
    assert counters(exporters[0]) == counters(exporters[1])


# -- the endpoint -----------------------------------------------------------------------------------------------------


@pytest.fixture
def exporter(store: Store, broker: RelierRedisBroker, settings: Settings) -> Iterator[Exporter]:
    exporter = Exporter(store, broker, settings, ("127.0.0.1", 0))
    exporter.start()
    yield exporter
    exporter.stop()


def asked(exporter: Exporter, path: str, method: str = "GET", **headers: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(*exporter.address, timeout=60)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers["Content-Type"], body


def test_the_endpoint_serves_metrics_in_the_format_that_is_asked_for(exporter: Exporter) -> None:
    status, content_type, body = asked(exporter, "/metrics")
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert samples(body)["relier_up",] == 1
    status, content_type, body = asked(exporter, "/metrics?a=b", Accept=OPENMETRICS)
    assert (status, content_type.partition(";")[0]) == (200, "application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_the_endpoint_says_that_it_lives_and_what_there_is(exporter: Exporter) -> None:
    assert exporter.url == f"http://127.0.0.1:{exporter.address[1]}/metrics"
    assert asked(exporter, "/healthz") == (200, "text/plain; charset=utf-8", b"ok\n")
    assert asked(exporter, "/")[0] == 404
    assert asked(exporter, "/metrics", "HEAD")[2] == b""
    assert asked(exporter, "/metrics", "POST")[0] == 501


def test_what_cannot_be_read_is_an_error_that_the_log_explains(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exporter.metrics, "_read", lambda: 1 / 0)
    status, _, body = asked(exporter, "/metrics")
    assert (status, body) == (500, b"Metrics could not be collected; the log says why.\n")
    assert "ZeroDivisionError" in caplog.text
    assert asked(exporter, "/healthz")[0] == 200


def test_many_who_ask_at_once_cost_the_store_one_reading(exporter: Exporter) -> None:
    pages: list[bytes] = []
    threads = [threading.Thread(target=lambda: pages.append(asked(exporter, "/metrics")[2])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = {samples(page)["relier_collection_seconds",] for page in pages}
    assert len(pages) == 8
    assert len(told) < 8, "some were answered from one reading"


def test_burn_rates_come_by_themselves(exporter: Exporter, tasks: Tasks) -> None:
    tasks.completed()
    exporter.metrics.page()
    exporter._burning._reckon()
    found = wait_until(lambda: [key for key in samples(exporter.page("")[0]) if key[0] == "relier_slo_burn_rate"])
    assert {dict(key[1:])["window"] for key in found} == {"1h", "6h", "3d"}


def test_a_port_that_is_taken_is_one_line(
    exporter: Exporter, store: Store, broker: RelierRedisBroker, settings: Settings
) -> None:
    host, port = exporter.address
    with pytest.raises(
        RelierStartupError, match=rf"^Metrics cannot be served on {host}:{port}: Address already in use\.$"
    ):
        Exporter(store, broker, settings, exporter.address)


def test_beside_other_work_a_port_that_is_taken_is_a_warning(
    exporter: Exporter, store: Store, broker: RelierRedisBroker, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    taken = settings.model_copy(update={"metrics_addr": f"127.0.0.1:{exporter.address[1]}"})
    assert serve_beside(store, broker, taken) is None
    assert "No metrics are served here." in caplog.text


@pytest.mark.parametrize("address", ["nonsense", "host", "host:", ":0", ":70000", "a b:80", "http://host:80"])
def test_an_address_that_is_none_is_one_line(address: str) -> None:
    with pytest.raises(RelierConfigError, match=r"^The metrics address '.*' is none: host:port"):
        listening_address(address)


def test_a_host_that_is_unknown_is_one_line(store: Store, broker: RelierRedisBroker, settings: Settings) -> None:
    with pytest.raises(RelierStartupError, match=r"^Metrics cannot be served on no\.such\.host\.invalid:9: .*\.$"):
        Exporter(store, broker, settings, ("no.such.host.invalid", 9))


def test_addresses_of_ipv6_are_taken() -> None:
    assert listening_address("[::1]:9192") == ("::1", 9192)
    assert listening_address(":9192") == ("", 9192)


def test_the_documented_table_is_the_table() -> None:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8").partition("## Every metric")[2]
    rows = re.findall(r"^\| `(.*?)` \| (.*?) \| (.*?) \| (.*) \|$", text, re.MULTILINE)
    documented = [(name, kind, tuple(re.findall(r"`(.*?)`", labels)), told) for name, kind, labels, told in rows]
    assert documented == [tuple(metric) for metric in METRICS]
