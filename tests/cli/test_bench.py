"""`rl bench`: it measures both, leaves nothing behind, and touches nothing of the user's."""

from __future__ import annotations

import glob
import os
import tempfile
from pathlib import Path

import pytest
import redis

from relier.store import Store
from relier_cli.bench.command import show
from relier_cli.bench.measuring import Comparison, Recovery
from tests import processes
from tests.cli.conftest import CommandLine, Tasks


def leftovers() -> set[str]:
    return set(glob.glob(os.path.join(tempfile.gettempdir(), "rl-bench-*")))


@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_on_a_given_server_everything_else_stays_as_it_was(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    tasks.scheduled()
    client: redis.Redis = store.client
    client.set("dramatiq:theirs", "1")
    before, folders = sorted(client.scan_iter()), leftovers()

    found = rl.json("bench", "--here", "--quick", "--only", "throughput", "--tasks", "40")

    assert found["server"] == rl.url
    assert found["enqueue"]["ratio"] > 0
    assert [each["prefetch"] for each in found["throughput"]] == ["default"]
    assert found["recovery"] is None
    assert sorted(client.scan_iter()) == before
    assert store.counters().get("completed", 0) == 0
    assert leftovers() == folders


@pytest.mark.slow
def test_the_whole_of_it_takes_a_server_of_its_own_and_leaves_none(tmp_path: Path) -> None:
    folders = leftovers()
    found = processes.rl_json(tmp_path, "bench", "--quick", redis_url="redis://127.0.0.1:1/0")
    assert found["server"] == "a private embedded server"
    assert found["recovery"]["kills"] == 1
    assert found["recovery"]["relier"] > 0
    assert found["recovery"]["plain"] is None, "plain Dramatiq waits a minute at least"
    assert found["recovery"]["at_least"]
    assert leftovers() == folders


def test_a_server_that_is_away_is_told_in_one_line(tmp_path: Path) -> None:
    done = processes.rl(tmp_path, "bench", "--here", redis_url="redis://:s3cr3t@127.0.0.1:1/0")
    assert (done.returncode, done.stdout) == (1, "")
    assert "redis://:***@127.0.0.1:1/0" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    without = [{}, {"redis_url": "redis://127.0.0.1:1,127.0.0.1:2", "redis_use_cluster": "true"}]
    for settings in without:
        done = processes.rl(tmp_path, "bench", "--here", **settings)
        assert done.returncode == 1
        assert done.stderr.startswith("There is no server to use: --here needs RELIER_REDIS_URL, or Sentinels;")


def test_ratios_are_those_of_the_pairs_and_the_rest_are_medians() -> None:
    data = Comparison([100, 200, 400], [100, 100, 800]).data()
    assert data == {"plain": 200, "relier": 100, "ratio": 1, "lowest_ratio": 0.5, "highest_ratio": 2}


def test_what_was_not_waited_for_is_a_lower_bound(capsys: pytest.CaptureFixture[str]) -> None:
    recovery = Recovery([0.2, 0.5, 0.4], None, 20.0).data()
    assert recovery["ratio"] == 50
    assert recovery["at_least"]
    show({"throughput": [], "enqueue": None, "recovery": recovery, "server": "here", "seconds": 30.0})
    printed = " ".join(capsys.readouterr().out.split())
    assert "not within 20 s 0.40 s, slowest of 3: 0.50 s more than 50 times as soon" in printed
    assert not Recovery([0.5], 61.0, 61.0).data()["at_least"]
