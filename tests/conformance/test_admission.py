"""What follows from an admitted task is never rejected."""

from __future__ import annotations

from typing import Any

import pytest
from dramatiq import pipeline

from relier import AdmissionRejectedError
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import where


@where(never=("sqlite",))
def test_retries_and_later_stages_go_on_when_the_limit_is_used_up(fleets: Fleets) -> None:
    fleet = fleets(admission_limit=2, admission_window=3600)
    actors = fleet.actors
    actors.flaky.push(2)
    stages: Any = pipeline(
        [actors.quick.message(1), actors.quick.message(), actors.quick.message()], broker=fleet.broker
    )
    stages.run()
    with pytest.raises(AdmissionRejectedError):
        actors.quick.push(3)

    fleet.worker()

    assert fleet.settle(4)["completed"] == 4
    with pytest.raises(AdmissionRejectedError):
        actors.quick.push(3)
