"""`rl slo`: who burns its error budget, and what is left of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relier.store import Store
from relier.store.objective import Objective
from tests import schemas
from tests.cli.conftest import CommandLine, Tasks
from tests.servers import RedisServer


@pytest.fixture(params=["embedded"])
def server(request: pytest.FixtureRequest) -> RedisServer:
    """One kind of server will do: what the command asks of it has tests of its own."""
    return request.getfixturevalue("servers").store(request.param)  # type: ignore[no-any-return]


@pytest.fixture
def burning(tasks: Tasks) -> Tasks:
    """Of 10 tasks of `work` 2 failed, with 90 % to succeed; `rare` has had none."""
    told = {"started_at": 1.0}
    tasks.store.fleet.register(tasks.worker, told, objectives={"work": Objective(0.9, 5.0), "rare": Objective(0.5)})
    for _ in range(8):
        tasks.completed()
    for number in range(2):
        tasks.dead(number)
    return tasks


def of(data: Any, actor: str, objective: str = "success") -> Any:
    (found,) = (o for o in data["objectives"] if (o["actor"], o["objective"]) == (actor, objective))
    return found


def test_status_tells_the_burn_rates_of_each_actor(rl: CommandLine, burning: Tasks) -> None:
    burning.discarded()
    burning.scheduled()
    data = rl.json("slo", "status")
    work = of(data, "work")
    assert {work["burn_rates"][window] for window in ("1h", "6h", "3d")} == {2.0}
    assert (work["failures"]["1h"], work["tasks"]["1h"], work["budget_left"]) == (2, 10, -1.0)
    assert (work["state"], work["alerts"]) == ("burning", []), "two failures wake nobody"
    assert of(data, "work", "latency")["burn_rates"]["1h"] == 0.0
    assert of(data, "rare")["state"] == "idle"
    assert data["default_target"] == 0.999
    assert data["burn_rates"]["1h"] == 2.0

    lines = rl("slo", "status").stdout.splitlines()
    assert lines[0].split() == ["ACTOR", "OBJECTIVE", "1H", "6H", "3D", "BUDGET", "LEFT", "STATE"]
    assert lines[1].split() == ["work", "90", "%", "succeed", "2.0", "2.0", "2.0", "-100.0", "%", "burning"]
    assert lines[-1] == "work: 2 of 10 tasks failed in 3 days, and no rule alerts: rl dlq groups --actor work"


def test_an_actor_that_sets_no_target_has_that_of_the_settings(rl: CommandLine, tasks: Tasks) -> None:
    tasks.dead()
    for _ in range(3):
        tasks.completed()
    assert of(rl.json("slo", "status"), "work")["burn_rates"]["1h"] == 250.0
    assert of(rl.json("slo", "status", slo_target="0.5"), "work")["burn_rates"]["1h"] == 0.5


def test_what_alerts_is_said_with_what_to_do_and_checked_on_request(rl: CommandLine, burning: Tasks) -> None:
    assert rl("slo", "status", "--check").returncode == 0, "it burns, but no rule alerts"
    for number in range(30):
        burning.dead(number)
    assert rl("slo", "status").returncode == 0
    done = rl("slo", "status", "--check")
    assert done.returncode == 1
    assert "work burns 8.0 over 6h and 8.0 over 30m, above 6 (page): rl dlq groups --actor work" in done.stdout
    (alert, *_) = of(rl.json("slo", "status"), "work")["alerts"]
    assert alert == {"severity": "page", "long": "6h", "short": "30m", "factor": 6.0}


def test_a_release_and_a_purge_do_not_undo_a_failure(rl: CommandLine, burning: Tasks) -> None:
    assert rl("dlq", "release", burning.dead().task_id).returncode == 0
    assert rl("dlq", "purge", "--all", "--yes").returncode == 0
    assert of(rl.json("slo", "status"), "work")["failures"]["1h"] == 3


def test_refused_messages_are_failures_of_nobody(rl: CommandLine, tasks: Tasks) -> None:
    """A wrong key after a deployment, say: nobody believes which actors they are for, and somebody has to be told."""
    for number in range(5):
        tasks.refused("it was changed on its way", number)
    (refused,) = rl.json("slo", "status")["objectives"]
    assert (refused["actor"], refused["state"], refused["failures"]["5m"]) == ("(refused)", "page", 5)
    assert rl("slo", "status").stdout.splitlines()[-1].endswith("rl dlq list --reason PayloadIntegrityError")


def test_a_task_that_completed_too_late_is_slow(rl: CommandLine, burning: Tasks) -> None:
    for late in (1, 2**52, 2**52):
        sending, fence = burning.running()
        protections = json.dumps({"late": late})
        for _ in range(2):  # The second as after a lost reply.
            assert burning.store.tasks.commit(burning.worker, sending, fence, hooks=False, protections=protections)
    latency = of(rl.json("slo", "status"), "work", "latency")
    assert (latency["failures"]["1h"], latency["tasks"]["1h"], latency["latency"]) == (1, 11, 5.0)


def test_nothing_is_told_of_an_empty_store(rl: CommandLine, store: Store) -> None:
    assert rl("slo", "status").stdout.startswith("No task has ended")
    assert rl.json("slo", "status")["objectives"] == []
    assert "Nobody has spent anything" in rl("slo", "report").stdout


def test_a_report_in_each_form_begins_with_the_worst(rl: CommandLine, burning: Tasks) -> None:
    data = rl.json("slo", "report")
    worst = data["objectives"][0]
    assert (worst["actor"], worst["objective"]) == ("work", "success")
    assert (data["days"], data["failures"], data["tasks"], data["exhausted"]) == (30, 2, 10, ["work"])
    assert of(data, "work")["attained"] == 0.8
    form = rl("slo", "report", "--format", "json", "--days", "7")
    schemas.check("slo report", json.loads(form.stdout))
    assert json.loads(form.stdout)["days"] == 7

    table = rl("slo", "report", "--days", "1").stdout.splitlines()
    assert table[0].startswith("Error budgets, 20")
    assert table[2].split() == ["work", "90", "%", "succeed", "80", "%", "2", "10", "-100.0", "%"]
    assert table[-1] == "Spent most of the budget: work (success) 200.0 %."


def test_markdown_is_a_table_whatever_an_actor_is_called(rl: CommandLine, burning: Tasks) -> None:
    told = {"started_at": 2.0}
    burning.store.fleet.register(burning.worker, told, objectives={"a|b\n<i>*x*": Objective(0.9)})
    lines = rl("slo", "report", "--format", "markdown").stdout.splitlines()
    assert lines[0].startswith("# Error budgets, ")
    rows = [line for line in lines if line.startswith("| ")]
    assert rows[1] == "| --- | --- | --- | --- | --- | --- |"
    assert r"| a\|b\\n\<i\>\*x\* | 90 % succeed | - | 0 | 0 | 100.0 % |" in rows


@pytest.mark.parametrize("line", [("--days", "31"), ("--days", "0"), ("--format", "yaml")])
def test_a_period_or_a_form_that_is_none_is_misuse(line: tuple[str, str], rl: CommandLine) -> None:
    assert rl("slo", "report", *line).returncode == 2
