"""The storm: what it plans, and a short one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.storm.plan import kinds, plan
from tests import sources
from tests.conftest import skip
from tests.processes import ROOT, environment


@pytest.mark.parametrize("apart", [True, False])
def test_the_same_seed_plans_the_same_storm_and_every_storm_has_each_kind_of_fault(apart: bool) -> None:
    for seed in range(50):
        faults = plan(seed, 60, apart)
        assert faults == plan(seed, 60, apart)
        assert {fault.kind for fault in faults} == set(kinds(apart))
        assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
        assert all(0 < fault.at < 60 for fault in faults)
    assert plan(1, 60, apart) != plan(2, 60, apart)


@pytest.mark.slow
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_a_short_storm_loses_and_doubles_nothing(broker: str, request: pytest.FixtureRequest) -> None:
    for kind in {"redis", broker}:
        if not sources.sources(kind):
            skip(request, sources.Unavailable(kind, sources.MISSING[kind]))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.storm", "--seconds", "20", "--broker", broker],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
