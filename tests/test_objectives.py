"""What actors promise: options that are checked, told by workers, and followed by commits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.brokers.stub import StubBroker

from relier import install, rl_actor
from relier.envelope import Stamp
from relier.objectives import DELAY, late_from, objective_of, objectives_of
from relier.runs import Run
from relier.store import Sending
from relier.store.objective import Objective


@pytest.mark.parametrize("target", [0, 1, 1.5, -0.1, True, "0.9", float("nan"), 10**400])
def test_a_target_that_is_no_rate_is_refused(target: Any) -> None:
    with pytest.raises(ValueError, match="Actor 'work': slo_target is a rate above 0 and below 1, not"):
        rl_actor(actor_name="work", slo_target=target)(print)
    assert objective_of({"slo_target": target}).target is None


def test_a_percentage_is_told_from_a_rate() -> None:
    with pytest.raises(ValueError, match=r"99\.9 % is 0\.999\.$"):
        rl_actor(actor_name="work", slo_target=99.9)(print)


@pytest.mark.parametrize("latency", [0, -1, True, "5", float("inf"), 31 * 86_400])
def test_a_latency_that_is_no_time_is_refused(latency: Any) -> None:
    with pytest.raises(ValueError, match="slo_latency is a number of seconds above 0"):
        rl_actor(actor_name="work", slo_latency=latency)(print)
    assert objective_of({"slo_latency": latency}).latency is None


@pytest.fixture
def broker() -> Iterator[StubBroker]:
    broker = StubBroker()
    broker.emit_after("process_boot")
    install(broker)
    yield broker
    broker.close()


def stamp_in(broker: StubBroker, queue: str) -> dict[str, Any]:
    (data,) = broker.queues[queue].queue
    stamp: dict[str, Any] = Message.decode(data).options["relier"]
    return stamp


def run(actor: str, created: float, **options: Any) -> Run:
    message = Message[Any]("default", actor, (), {}, options)
    sending = Sending("t", 0, "default", actor, b"", created=created)
    return Run(message, Stamp("t", 0), sending, "w1")


def test_what_actors_promise_is_told_of_each(broker: StubBroker) -> None:
    rl_actor(broker=broker, actor_name="mail", slo_target=0.9, slo_latency=5)(print)
    rl_actor(broker=broker, actor_name="other")(print)
    dramatiq.actor(broker=broker, actor_name="plain", slo_latency=2.5)(print)
    dramatiq.actor(broker=broker, actor_name="wrong", slo_target=99.9)(print)
    assert objectives_of(broker) == {
        "mail": Objective(0.9, 5),
        "other": Objective(),
        "plain": Objective(latency=2.5),
        "wrong": Objective(),
    }


def test_the_time_runs_from_the_push(broker: StubBroker) -> None:
    rl_actor(broker=broker, actor_name="mail", slo_latency=5)(print)
    rl_actor(broker=broker, actor_name="other", slo_target=0.9)(print)
    assert late_from(broker, run("mail", 1000.25)) == 1_005_250_000
    assert late_from(broker, run("other", 1000.25)) == 0
    assert late_from(broker, run("unknown", 1000.25)) == 0
    assert late_from(broker, run("mail", 0.0)) == 0, "nobody knows when it was pushed"


def test_a_delay_is_no_latency(broker: StubBroker) -> None:
    mail = rl_actor(broker=broker, actor_name="mail", slo_latency=5)(print)
    other = rl_actor(broker=broker, actor_name="other", queue="low_priority")(print)
    mail.send_with_options(delay=1500)
    other.send_with_options(delay=1500)
    assert stamp_in(broker, "default.DQ")[DELAY] == 1500
    assert DELAY not in stamp_in(broker, "low_priority.DQ"), "nobody asks for it"
    assert late_from(broker, run("mail", 1000.0, relier={DELAY: 1500})) == 1_006_500_000
    assert late_from(broker, run("mail", 1000.0, eta=1_002_000)) == 1_007_000_000


@pytest.mark.parametrize("value", [10**400, float("nan"), "later", True, None, [1]])
def test_what_a_message_claims_of_its_delay_may_be_anything(broker: StubBroker, value: Any) -> None:
    rl_actor(broker=broker, actor_name="mail", slo_latency=5)(print)
    assert late_from(broker, run("mail", 1000.0, relier={DELAY: value}, eta=value)) == 1_005_000_000
