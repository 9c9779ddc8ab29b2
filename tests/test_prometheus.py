"""A real Prometheus, configured as in deploy/, scrapes a real fleet: it understands every metric, rule and query."""

from __future__ import annotations

import contextlib
import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from relier.metric_table import METRICS
from tests import processes, sources
from tests.conftest import skip
from tests.servers.prometheus import Prometheus
from tests.servers.service import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "deploy" / "prometheus"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
METRICS_PAGE = ROOT / "docs" / "metrics.md"
#: What a panel's description says whose queries may find nothing.
WELL = "Empty when all is well."

ACTORS = """
from relier import rl_actor

@rl_actor(idempotent=True, idempotency_key="{order}", slo_latency=60.0)
def charge(order): pass

@rl_actor(max_retries=0, queue="low_priority", admission_limit=1000)
def fail(text): raise ValueError(text)

def push():
    for order in range(10):
        charge.push(order % 5)
    fail.push("no")
"""


@dataclass
class Scraped:
    """A fleet with an exporter of its own, and the Prometheus that scrapes it."""

    folder: Path
    url: str
    address: str
    prometheus: Prometheus
    exporter: processes.Started = field(init=False)

    def push(self) -> None:
        """Push ten tasks of which half are duplicates, and one that fails."""
        done = processes.run(self.folder, "push", redis_url=self.url, log_level="warning")
        assert done.returncode == 0, done.stderr

    def await_ends(self, tasks: int) -> None:
        """Wait until Prometheus knows that so many tasks have ended."""
        query = self.prometheus.query
        wait_until(lambda: sum(query("relier_tasks_total").values()) == tasks, 60, f"{tasks} ends in Prometheus")

    def serve(self) -> None:
        """Start an exporter."""
        command = ("relier_cli.app", "metrics", "--addr", self.address)
        self.exporter = processes.Started(self.folder, *command, redis_url=self.url)
        wait_until(lambda: "Serving metrics." in self.exporter.output, 60, "the exporter")

    def close(self) -> None:
        with self.exporter:
            pass


@pytest.fixture
def scraped(request: pytest.FixtureRequest, prometheus: Prometheus, tmp_path: Path) -> Iterator[Scraped]:
    folder = tmp_path
    processes.actors(folder, ACTORS, "shop")
    (folder / "push.py").write_text("import shop\nshop.push()\n")
    address = f"127.0.0.1:{free_port()}"
    for name in ("relier-recording.yml", "relier-alerts.yml"):
        text = (RULES / name).read_text(encoding="utf-8")
        (folder / name).write_text(text.replace("interval: 1m", "interval: 1s"), encoding="utf-8")
    config = (RULES / "prometheus.yml").read_text(encoding="utf-8")
    config = config.replace("15s", "1s").replace("resurrector:9192", address)
    with ExitStack() as stack:
        try:
            server = sources.start("embedded", private=True)
        except sources.Unavailable as error:
            skip(request, error)
        stack.callback(server.close)
        worker = ("dramatiq", "relier.workers", "shop", "-p", "1", "-t", "4")
        stack.enter_context(processes.Started(folder, *worker, redis_url=server.url))
        found = Scraped(folder, server.url, address, prometheus)
        found.serve()
        stack.callback(found.close)
        prometheus.start(config, *(folder / name for name in ("relier-recording.yml", "relier-alerts.yml")))
        found.push()
        found.await_ends(11)  # They make the series, the next let them grow.
        found.close()
        found.serve()  # An exporter reckons burn rates when it begins, then once a minute.
        found.push()
        found.await_ends(22)
        wait_until(lambda: prometheus.query("relier_slo_burn_rate"), 100, "burn rates")
        yield found


def reads_every_metric_as_what_it_is(scraped: Scraped) -> None:
    told = scraped.prometheus.ask("targets/metadata", match_target='{job="relier"}')
    found = {about["metric"]: (about["type"], about["help"]) for about in told}
    expected = {metric.name: (metric.type, metric.help) for metric in METRICS}
    # OpenMetrics names a family of counters without its ending.
    named = {name if name in expected else name + "_total": about for name, about in found.items()}
    assert {name: expected.get(name) for name in named} == named
    missing = {"relier_tasks_parked", "relier_discarded_total", "relier_tasks_in_flight", "relier_longest_run_seconds"}
    assert expected.keys() - named.keys() <= missing


def tells_the_numbers_of_the_store(scraped: Scraped) -> None:
    query = scraped.prometheus.query
    ends = query("sum by (queue, actor, outcome) (relier_tasks_total)")
    assert ends[("actor", "charge"), ("outcome", "completed"), ("queue", "default")] == 20
    assert ends[("actor", "fail"), ("outcome", "dead"), ("queue", "low_priority")] == 2
    assert query('sum(relier_dead_letters{reason="ValueError"})') == {(): 2}
    assert query('sum(relier_idempotency_hits_total{actor="charge"})') == {(): 15}
    assert query('relier_admission_total{decision="admitted"}')
    assert query('sum(relier_workers{state="alive"})') == {(): 1}


def sees_no_counter_go_back_when_the_exporter_is_killed(scraped: Scraped) -> None:
    """Another one takes its place, and tells the same: what the store has."""
    query = scraped.prometheus.query
    scraped.exporter.process.kill()
    wait_until(lambda: query('up{job="relier"} == 0'), 60, "Prometheus to miss the exporter")
    scraped.serve()
    scraped.push()
    scraped.await_ends(33)
    counters = [metric.name for metric in METRICS if metric.type == "counter"]
    counters += [metric.name + part for metric in METRICS if metric.type == "histogram" for part in ("_count", "_sum")]
    resets = {name: query(f"sum(resets({name}[1h])) > 0") for name in counters}
    assert {name: found for name, found in resets.items() if found} == {}


def finds_something_for_every_query_that_we_show(scraped: Scraped) -> None:
    """But for those of panels that say that they are empty when all is well: these must only be understood."""
    left = [query for dashboard in DASHBOARDS for query in queries_of(dashboard)]
    documented = re.findall(r"^\| how .* \| `(.*)` \|$", METRICS_PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert documented
    left += [(query, False) for query in documented]

    def all_found() -> bool:
        left[:] = [found for found in left if not (scraped.prometheus.query(found[0]) or found[1])]
        return not left

    with contextlib.suppress(AssertionError):
        wait_until(all_found, 60)
    assert left == [], "these find nothing"


def queries_of(dashboard: Path) -> Iterator[tuple[str, bool]]:
    """Yield each query of a dashboard, and whether it may find nothing."""
    for panel in json.loads(dashboard.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            query = target["expr"].replace("$job", "relier").replace("$queue", ".*").replace("$actor", ".*")
            assert "$" not in query
            yield query, WELL in panel["description"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboards_can_be_provisioned(dashboard: Path) -> None:
    text = dashboard.read_text(encoding="utf-8")
    board = json.loads(text)
    panels = board["panels"]
    assert board["uid"] == dashboard.stem
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] == "row" or panel["description"].endswith(".")
    variables = {variable["name"] for variable in board["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", text)) - {"__all"} == variables


def finds_the_variables_of_the_dashboards(scraped: Scraped) -> None:
    for dashboard in DASHBOARDS:
        for variable in json.loads(dashboard.read_text(encoding="utf-8"))["templating"]["list"]:
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable.get("definition", ""))
            if asked is None:
                assert variable["type"] == "datasource"
                continue
            series = asked[1].replace("$job", "relier").replace("$queue", ".*")
            assert scraped.prometheus.query(f"count by ({asked[2]}) ({series})")


def evaluates_every_rule_and_alerts_only_of_what_is_wrong(scraped: Scraped) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in scraped.prometheus.ask("rules")["groups"] for rule in group["rules"]]

    wait_until(lambda: all(rule["health"] != "unknown" for rule in rules()), 60, "every rule to be evaluated")
    assert [rule for rule in rules() if rule["health"] != "ok"] == []
    alerting = {rule["name"] for rule in rules() if rule.get("state") in ("pending", "firing")}
    assert alerting <= {"RelierNoResurrector"}, "there is none; and nothing else is wrong"


@pytest.mark.timeout(480)
def test_a_real_prometheus_understands_everything(scraped: Scraped) -> None:
    """One test: the fleet that it scrapes is there once."""
    reads_every_metric_as_what_it_is(scraped)
    tells_the_numbers_of_the_store(scraped)
    finds_something_for_every_query_that_we_show(scraped)
    finds_the_variables_of_the_dashboards(scraped)
    evaluates_every_rule_and_alerts_only_of_what_is_wrong(scraped)
    sees_no_counter_go_back_when_the_exporter_is_killed(scraped)
    lets_an_exporter_end_in_order(scraped)


# -- promtool ---------------------------------------------------------------------------------------------------------


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", (RULES / "relier-alerts.yml").read_text(encoding="utf-8"))


def test_promtool_finds_nothing_wrong_with_rules_and_configuration(prometheus: Prometheus) -> None:
    done = prometheus.check("check", "config", RULES / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 rule files found" in done.stdout


def test_each_alert_fires_when_it_should_and_only_then(prometheus: Prometheus) -> None:
    tests = sorted((RULES / "tests").glob("*.yml"))
    assert {path.stem for path in tests} == set(alerts()), "a test file for each alert"
    done = prometheus.check("test", "rules", *tests)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in tests:
        text = path.read_text(encoding="utf-8")
        assert text.count(f"alertname: {path.stem}") == 2
        assert text.count("exp_alerts: []") == 1, "a case in which it does not fire"


def test_each_alert_has_a_runbook() -> None:
    text = (RULES / "relier-alerts.yml").read_text(encoding="utf-8")
    links = re.findall(r"runbook: docs/(\w+\.md)#(\w+)", text)
    assert [anchor for _, anchor in links] == [name.lower() for name in alerts()]
    assert {page for page, _ in links} == {"alerts.md"}
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == alerts()


def test_metrics_in_rules_are_metrics_of_the_exporter() -> None:
    known = {metric.name for metric in METRICS}
    known |= {metric.name + suffix for metric in METRICS for suffix in ("_bucket", "_count", "_sum")}
    for path in sorted(RULES.glob("relier-*.yml")):
        named = set(re.findall(r"\brelier_\w+", path.read_text(encoding="utf-8")))
        assert named <= known


def lets_an_exporter_end_in_order(scraped: Scraped) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        other = Scraped(scraped.folder, scraped.url, f"127.0.0.1:{free_port()}", scraped.prometheus)
        other.serve()
        other.exporter.process.send_signal(number)
        assert other.exporter.ended() == 0
        other.close()
