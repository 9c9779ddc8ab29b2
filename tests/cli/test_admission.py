from __future__ import annotations

import re

import pytest
from dramatiq import Message

from relier.brokers.redis import RelierRedisBroker
from relier.settings import Settings
from relier.store import Store
from relier.store.admissions import Limit, Report
from tests.cli.conftest import CommandLine

#: As long as no test.
WINDOW = 3600.0


def lease(store: Store, scope: str, most: int, count: int) -> None:
    limit = Limit(scope, most, WINDOW)
    granted = store.admissions.lease(limit, count, count, Report(rejected=3, failed_open=2)).granted
    assert granted == count


def test_status_tells_whether_the_cluster_sheds(rl: CommandLine, store: Store) -> None:
    window = str(WINDOW)
    assert rl("admission", "status", admission_window=window).stdout.splitlines()[0] == "ALLOWING (0/5000, 0.0%)"

    lease(store, "global", 5000, 1240)
    shown = rl("admission", "status", admission_window=window).stdout.splitlines()
    assert shown[0] == "ALLOWING (1240/5000, 24.8%)"
    assert shown[-1] == "admitted 1240, rejected 3, failed open 2"

    lease(store, "global", 5000, 3760)
    shown = rl("admission", "status", admission_window=window).stdout.splitlines()
    assert shown[0] == "SHEDDING (5000/5000, 100.0%)"


def test_status_tells_the_limits_of_actors_and_keys(rl: CommandLine, store: Store) -> None:
    lease(store, "actor:export", 10, 4)
    lease(store, "key:export:ann:1", 2, 2)

    shown = [line.split() for line in rl("admission", "status").stdout.splitlines()]
    assert ["actor", "export", "4", "10", "3600s", "ALLOWING", "-"] in shown
    assert ["actor", "export,", "key", "ann:1", "2", "2", "3600s", "SHEDDING"] in [line[:-1] for line in shown]

    found = rl.json("admission", "status")
    assert (found["scope"], found["state"], found["used"], found["limit"]) == ("global", "allowing", 0, 5000)
    assert [(limit["scope"], limit["state"], limit["used"]) for limit in found["limits"]] == [
        ("actor:export", "allowing", 4),
        ("key:export:ann:1", "shedding", 2),
    ]
    assert 0 < found["limits"][1]["opens_in"] < 1.1 * WINDOW


def test_status_tells_which_queue_is_too_deep(rl: CommandLine, settings: Settings) -> None:
    broker = RelierRedisBroker(settings=settings)
    for queue, count in (("default", 4), ("low_priority", 2)):
        broker.declare_queue(queue)
        for _ in range(count):
            broker.enqueue(Message(queue_name=queue, actor_name="work", args=(), kwargs={}, options={}))
    broker.close()
    broker.store.close()

    shown = rl("admission", "status", admission_max_depth="3").stdout.splitlines()
    assert re.fullmatch(r"ALLOWING \(\d/5000, 0\.\d%\), SHEDDING for queue default", shown[0])
    assert ["default", "4", "3", "SHEDDING"] in [line.split() for line in shown]
    assert ["low_priority", "2", "3", "ALLOWING"] in [line.split() for line in shown]
    assert rl.json("admission", "status", admission_max_depth="3")["queues"] == [
        {"queue": "default", "state": "shedding", "waiting": 4, "limit": 3},
        {"queue": "low_priority", "state": "allowing", "waiting": 2, "limit": 3},
    ]
    assert "SHEDDING" not in rl("admission", "status").stdout, "the depth is not limited"


def test_a_reset_lets_every_limit_begin_anew(rl: CommandLine, store: Store) -> None:
    lease(store, "global", 5000, 5000)
    lease(store, "actor:export", 10, 4)

    refused = rl("admin", "reset-admission")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "--yes" in refused.stderr
    assert len(store.admissions.usages()) == 2

    assert rl.json("admin", "reset-admission", "--yes") == {"limits": 2}
    assert store.admissions.usages() == []
    assert store.counters()["admitted"] == 5000, "counters stay"


@pytest.mark.parametrize("command", [("admission", "status"), ("admin", "reset-admission", "--yes")])
def test_a_store_that_is_away_is_told_in_one_line(rl: CommandLine, command: tuple[str, ...]) -> None:
    done = rl(*command, redis_url="redis://127.0.0.1:1/0")
    assert done.returncode == 1
    assert done.stderr.startswith("Relier cannot reach Redis (redis://127.0.0.1:1/0).")
    assert len(done.stderr.splitlines()) == 1
