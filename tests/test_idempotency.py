"""Which tasks mean the same: how an idempotency key is made from what is pushed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from relier import TaskContext, install, rl_actor
from relier.envelope import stamp_of
from relier.idempotency import key_of, terms_of
from relier.sending import prepared
from relier.settings import Settings
from relier.store import shard_of


@pytest.fixture
def broker() -> Iterator[StubBroker]:
    broker = StubBroker()
    install(broker, Settings())
    yield broker
    broker.close()


def report(customer: int, month: str = "may", *parts: str, draft: bool = False, **more: Any) -> None: ...


def key(actor: Any, *args: Any, **kwargs: Any) -> str:
    return key_of(actor.broker, actor.message(*args, **kwargs))


def test_the_same_arguments_are_the_same_however_they_are_passed(broker: StubBroker) -> None:
    actor = rl_actor(report, broker=broker, idempotent=True)
    same = {
        key(actor, 1),
        key(actor, customer=1),
        key(actor, 1, "may"),
        key(actor, month="may", customer=1, draft=False),
    }
    assert len(same) == 1
    others = [key(actor, 2), key(actor, "1"), key(actor, 1.0), key(actor, 1, "june"), key(actor, 1, draft=True)]
    others += [key(actor, 1, "may", "a"), key(actor, 1, a="may"), key(actor, [1]), key(actor, {"a": 1, "b": 2})]
    assert len({*same, *others}) == 1 + len(others)
    assert key(actor, {"b": 2, "a": 1}) == others[-1]
    assert key(actor, (1,)) == others[-2]  # JSON knows no tuples.


def test_keys_of_different_actors_never_meet(broker: StubBroker) -> None:
    actors = [rl_actor(report, broker=broker, idempotent=True, actor_name=name) for name in ("one", "two")]
    actors += [rl_actor(report, broker=broker, idempotency_key="{customer}", actor_name=name) for name in "ab"]
    assert len({key(actor, 1) for actor in actors}) == 4


def test_the_context_is_no_argument(broker: StubBroker) -> None:
    @rl_actor(broker=broker, idempotent=True)
    def first(ctx: TaskContext, x: int) -> None: ...

    @rl_actor(broker=broker, idempotency_key="{x}")
    async def last(x: int, *, ctx: TaskContext) -> None: ...

    def other(x: int, ctx: TaskContext) -> None: ...

    assert key(first, 1) == key(first, x=1) != key(first, 2)
    assert key(last, 1) == key(last, x=1)
    with pytest.raises(ValueError, match="names 'ctx'; its parameters are: x"):
        rl_actor(broker=broker, idempotency_key="{ctx}")(other)


def test_a_template_names_what_matters(broker: StubBroker) -> None:
    actor = rl_actor(report, broker=broker, idempotency_key="{customer}/{month}")
    assert key(actor, 1, "may", draft=True) == key(actor, customer=1) != key(actor, 1, "june")
    inner = rl_actor(report, broker=broker, idempotency_key="{customer[id]}", actor_name="inner")
    assert key(inner, {"id": 1, "name": "a"}) == key(inner, {"id": 1}) != key(inner, {"id": 2})


def test_a_function_makes_a_key_or_none(broker: StubBroker) -> None:
    def choose(customer: int, *args: Any, **kwargs: Any) -> Any:
        return None if customer == 0 else ("customer", customer % 10)

    actor = rl_actor(report, broker=broker, idempotency_key=choose)
    assert key(actor, 1, "may") == key(actor, 11, "june") != key(actor, 2)
    assert key(actor, 0) == ""


@pytest.mark.parametrize("source", [lambda customer, **_: {}[customer], "{customer[id]}"])
def test_a_key_that_cannot_be_made_is_told_with_its_cause(broker: StubBroker, source: Any) -> None:
    actor = rl_actor(report, broker=broker, idempotency_key=source)
    with pytest.raises(ValueError, match=r"Actor 'report': idempotency_key failed \(KeyError: ") as caught:
        actor.push({"name": "ann"} if isinstance(source, str) else 7)  # type: ignore[arg-type]
    assert isinstance(caught.value.__cause__, KeyError)
    assert broker.queues["default"].qsize() == 0


def test_plain_actors_take_the_options_as_well(broker: StubBroker) -> None:
    actor = dramatiq.actor(broker=broker, idempotent=True)(report)
    plain = dramatiq.actor(broker=broker, actor_name="plain")(report)
    assert key(actor, 1) == key(actor, customer=1) != ""
    assert key(plain, 1) == ""


def test_class_based_actors_have_keys(broker: StubBroker) -> None:
    dramatiq.set_broker(broker)

    class Work(dramatiq.GenericActor):
        class Meta:
            broker: Any
            idempotency_key = "{x}"

        def perform(self, x: int, y: int = 0) -> None: ...

    assert key(Work, 1, 2) == key(Work, x=1)


def test_arguments_without_a_stable_form_are_refused_at_the_push(broker: StubBroker) -> None:
    actor = rl_actor(report, broker=broker, idempotent=True)
    with pytest.raises(ValueError, match=r"Actor 'report': no idempotency key can be made: .* idempotency_key"):
        actor.push(float("nan"))  # type: ignore[arg-type]
    assert broker.queues["default"].qsize() == 0


def test_arguments_that_the_actor_does_not_take_are_left_to_its_run(broker: StubBroker) -> None:
    """There they fail like those of any other task."""

    @rl_actor(broker=broker, idempotent=True)
    def narrow(x: int) -> None: ...

    @rl_actor(broker=broker, idempotency_key="{x}")
    def templated(x: int) -> None: ...

    assert key(narrow, 1, 2) == key(narrow, 1, 2) != key(narrow, 1)
    with pytest.raises(ValueError, match="does not take these arguments"):
        templated.push(1, 2)  # type: ignore[call-arg]


def test_the_stamp_carries_the_key_and_its_shard(broker: StubBroker) -> None:
    actor = rl_actor(report, broker=broker, idempotent=True)
    stamps = [stamp_of(prepared(broker, actor.message(1))) for _ in range(2)]
    assert {stamp.key for stamp in stamps} == {key(actor, 1)}
    assert {stamp.shard for stamp in stamps} == {shard_of(key(actor, 1))}
    assert stamps[0].task_id != stamps[1].task_id


def test_a_message_that_is_enqueued_again_makes_its_key_anew(broker: StubBroker) -> None:
    actor = rl_actor(report, broker=broker, idempotent=True)
    sent = prepared(broker, actor.message(1))
    changed = prepared(broker, sent.copy(args=(2,)))
    assert stamp_of(changed).key == key(actor, 2)
    assert stamp_of(changed).shard == shard_of(key(actor, 2))


def test_the_store_learns_the_terms(broker: StubBroker) -> None:
    settings = Settings(idempotency_default_ttl=50, idempotency_inflight_ttl=7, result_ttl=20)
    default = rl_actor(report, broker=broker, idempotent=True)
    other = rl_actor(
        report, broker=broker, actor_name="other", idempotent=True, idempotency_ttl=90.5, on_duplicate="drop"
    )

    def terms(message: Any) -> dict[str, Any]:
        found = terms_of(broker, message, "k", settings)
        assert found is not None
        return found.terms()

    usual = terms(default.message(1))
    assert usual == {
        "k": "k",
        "on": "wait",
        "hooks": 0,
        "needs": 0,
        "ttl": 50_000,
        "flight": 7_000_000,
        "keep": 20_000_000,
        "res": 50_000,
    }
    assert (terms(other.message(1))["on"], terms(other.message(1))["ttl"]) == ("drop", 90_500)
    piped = default.message(1) | default.message(2)
    assert (terms(piped.messages[0])["hooks"], terms(piped.messages[0])["needs"]) == (1, 1)
    ignoring = default.message(1) | default.message_with_options(args=(2,), pipe_ignore=True)
    assert (terms(ignoring.messages[0])["hooks"], terms(ignoring.messages[0])["needs"]) == (1, 0)
    assert terms_of(broker, default.message(1), "", settings) is None
