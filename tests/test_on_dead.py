"""`on_dead` is checked when actors are declared, in whatever order that happens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import dramatiq.broker
import pytest
from dramatiq.brokers.stub import StubBroker

from relier import TaskContext, rl_actor
from relier.on_dead import report_strangers
from relier.sending import told_of_death
from relier.settings import get_settings, reset_settings


@pytest.fixture
def broker() -> Iterator[StubBroker]:
    broker = StubBroker()
    broker.emit_after("process_boot")
    yield broker
    broker.close()


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(dramatiq.broker, "global_broker", None)
    reset_settings()
    yield
    reset_settings()


def tell(record: dict[str, Any]) -> None: ...


def tell_with_context(record: dict[str, Any], ctx: TaskContext) -> None: ...


def work() -> None: ...


@pytest.mark.parametrize("target", [tell, tell_with_context])
def test_an_actor_or_its_name_is_told(broker: StubBroker, target: Any) -> None:
    told = rl_actor(broker=broker, queue="low_priority", schema_version=3, max_resurrections=7)(target)
    by_actor = rl_actor(broker=broker, actor_name="one", on_dead=told)(work)
    by_name = rl_actor(broker=broker, actor_name="two", on_dead=told.actor_name)(work)
    plain = dramatiq.actor(broker=broker, actor_name="three", on_dead=told)(work)

    for actor in (by_actor, by_name, plain):
        kept = told_of_death(broker, actor.actor_name, get_settings())
        assert kept == f"low_priority\n{told.actor_name}\n3\n7"


def test_a_name_may_be_declared_later(broker: StubBroker, caplog: pytest.LogCaptureFixture) -> None:
    rl_actor(broker=broker, queue="high_priority", on_dead="tell")(work)

    report_strangers(broker)
    assert "The on_dead of an actor is unknown here." in caplog.text
    assert told_of_death(broker, "work", get_settings()) == "high_priority\ntell\n1\n5"

    rl_actor(broker=broker)(tell)
    caplog.clear()
    report_strangers(broker)
    assert not caplog.text
    assert told_of_death(broker, "work", get_settings()) == "default\ntell\n1\n5"


def test_without_the_option_nobody_is_told(broker: StubBroker) -> None:
    rl_actor(broker=broker)(work)

    assert told_of_death(broker, "work", get_settings()) == ""
    assert told_of_death(broker, "unknown", get_settings()) == ""


@pytest.mark.parametrize("wrong", [17, "", work])
def test_it_is_an_actor_or_a_name(broker: StubBroker, wrong: Any) -> None:
    with pytest.raises(ValueError, match="on_dead is an actor or its name"):
        rl_actor(broker=broker, on_dead=wrong)(work)


def test_it_is_of_the_same_broker(broker: StubBroker) -> None:
    elsewhere = rl_actor(broker=StubBroker())(tell)

    with pytest.raises(ValueError, match="same broker"):
        rl_actor(broker=broker, on_dead=elsewhere)(work)


def test_it_does_not_lead_back(broker: StubBroker) -> None:
    with pytest.raises(ValueError, match="work → work"):
        rl_actor(broker=broker, on_dead="work")(work)
    rl_actor(broker=broker, actor_name="second", on_dead="third")(tell)
    rl_actor(broker=broker, actor_name="third", on_dead="first")(tell)

    with pytest.raises(ValueError, match="first → second → third → first"):
        rl_actor(broker=broker, actor_name="first", on_dead="second")(tell)


def test_it_has_no_key_whichever_is_declared_first(broker: StubBroker) -> None:
    keyed = rl_actor(broker=broker, actor_name="keyed", idempotent=True)(tell)
    with pytest.raises(ValueError, match="'keyed' must have no idempotent"):
        rl_actor(broker=broker, on_dead=keyed)(work)

    rl_actor(broker=broker, on_dead="later")(work)
    with pytest.raises(ValueError, match="'later' must have no job_key"):
        rl_actor(broker=broker, actor_name="later", job_key="{record}")(tell)


def test_it_takes_one_argument(broker: StubBroker) -> None:
    silent = rl_actor(broker=broker, actor_name="silent")(work)

    with pytest.raises(ValueError, match="'silent' must take one argument"):
        rl_actor(broker=broker, on_dead=silent)(work)
