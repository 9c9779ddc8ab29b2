"""What actors promise: real workers tell it, and what becomes of their tasks burns the budget, or does not."""

from __future__ import annotations

from typing import Any

import pytest

from relier import TaskReceipt
from relier.dlq import DeadLetters
from relier.slo import Burn, burn_rates
from relier.store.objective import Objective
from tests.integration.harness import Harness


def burn_of(fleet: Harness, actor: str, kind: str = "success") -> Burn:
    (found,) = (b for b in burn_rates(fleet.store, fleet.settings) if (b.actor, b.kind) == (actor, kind))
    return found


@pytest.mark.parametrize(
    "topology", ["embedded", "rabbitmq", pytest.param("cluster", marks=pytest.mark.slow)], indirect=True
)
def test_dead_letters_raise_the_burn_rate_and_nothing_else_does(fleet: Harness) -> None:
    fleet.worker()
    a = fleet.actors.failing
    for number in range(10):
        a.hasty.push(number == 0)
    fleet.settle(10)
    assert fleet.store.fleet.objectives() == {"hasty": Objective(0.9, 0.001), "patient": Objective(None, 3600)}
    assert burn_of(fleet, "hasty").tally("1h") == pytest.approx((1, 10, 1.0))
    assert burn_of(fleet, "hasty", "latency").tally("1h") == pytest.approx((9, 9, 0.9))

    dead = [a.hasty.push(True) for _ in range(4)]
    a.patient.push()
    later = a.hasty.send_with_options(delay=600_000)
    fleet.wait(lambda: burn_of(fleet, "hasty").tally("1h")[:2] == (5, 14), what="four dead letters more")
    fleet.wait(lambda: burn_of(fleet, "patient", "latency").tally("1h")[:2] == (0, 1), what="the task in time")
    burnt = burn_of(fleet, "hasty")
    assert burnt.burn_rate("1h") == pytest.approx(5 / 1.4)
    assert burnt.budget_left == pytest.approx(1 - 5 / 1.4)
    assert burnt.severity == "ticket"

    assert TaskReceipt.from_id(later.message_id, broker=fleet.broker).cancel() == "cancelled"
    released = dead[0].id
    assert DeadLetters(fleet.store).release(released) == {released: "released"}
    fleet.wait(lambda: burn_of(fleet, "hasty").tally("1h")[:2] == (6, 15), what="its next failure")


@pytest.mark.parametrize("topology", ["redis", "plain-rabbitmq"], indirect=True)
def test_a_delay_that_was_asked_for_is_no_latency_on_any_broker(fleet: Harness) -> None:
    fleet.worker()
    patient: Any = fleet.actors.failing.patient
    at_once = patient.push().id
    later = patient.send_with_options(delay=1200).message_id
    fleet.settle(2)
    allowed = {effect.task: effect.detail for effect in fleet.effects("ran")}
    assert allowed == {at_once: 3_600_000_000, later: 3_601_200_000}
    assert burn_of(fleet, "patient", "latency").tally("1h")[:2] == (0, 2)
