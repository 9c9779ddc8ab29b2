"""Other arguments for a dead letter: checked, sealed as if sent now, and never a blessing for what was refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dramatiq import Broker, Message
from dramatiq.brokers.stub import StubBroker

from relier import SchemaRegistry, TaskContext, rl_actor
from relier.envelope import stamp_of
from relier.integrity import Integrity
from relier.keyring import KeyRing
from relier.letter_edits import EditRefusedError, edited
from tests.test_integrity import NEW, OLD, keyless, message, sealed, signing

both = Integrity(KeyRing.parse(f"{NEW},{OLD}"))
migrating = Integrity(KeyRing.parse(NEW), required=False)


@pytest.fixture
def broker() -> Broker:
    """With an actor as that of `message`: add(x, y, *, deep=False)."""
    broker = StubBroker()

    def add(x: int, y: int, ctx: TaskContext, *, deep: bool = False) -> int:
        return x + y

    rl_actor(add, queue="default", broker=broker)
    return broker


def decoded(body: bytes) -> Message[Any]:
    return Message.decode(body)


@pytest.mark.parametrize("integrity", [signing, keyless], ids=["keys", "no keys"])
def test_other_arguments_are_sealed_again_as_the_same_task(integrity: Integrity, broker: Broker) -> None:
    before = sealed(integrity, message(1, "two"))
    new = edited(before.encode(), [1, 2], {"deep": True}, integrity=integrity, broker=broker)

    after = decoded(new.body)
    assert integrity.examine(after)
    assert (after.args, after.kwargs, new.unchecked) == ((1, 2), {"deep": True}, "")
    assert (stamp_of(after), after.message_id, after.actor_name) == (stamp_of(before), before.message_id, "add")
    assert after.options["max_retries"] == 3


def test_arguments_that_are_not_given_stay(broker: Broker) -> None:
    before = sealed(keyless, message(1, "two", deep=True))
    assert decoded(edited(before.encode(), [1, 2], None, integrity=keyless, broker=broker).body).kwargs == {
        "deep": True
    }
    assert decoded(edited(before.encode(), None, {}, integrity=keyless, broker=broker).body).args == (1, "two")


def test_the_first_key_signs_what_another_one_signed(broker: Broker) -> None:
    before = sealed(Integrity(KeyRing.parse(OLD)), message(1, 2))
    after = decoded(edited(before.encode(), [3, 4], None, integrity=both).body)
    assert signing.examine(after)


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ([1], None, "missing a required argument: 'y'"),
        ([1, 2, 3], None, "too many positional arguments"),
        ([1, 2], {"shallow": True}, "unexpected keyword argument 'shallow'"),
        ([1, 2], {"ctx": 1}, "unexpected keyword argument 'ctx'"),
    ],
)
def test_arguments_that_do_not_fit_the_actor_are_refused(args: Any, kwargs: Any, why: str, broker: Broker) -> None:
    with pytest.raises(EditRefusedError, match=why):
        edited(sealed(keyless, message(1, 2)).encode(), args, kwargs, integrity=keyless, broker=broker)


def test_arguments_of_an_older_version_go_through_the_migrations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relier.schema.migrations._steps", {})
    broker = StubBroker()

    @rl_actor(broker=broker, schema_version=2)
    def add(*, total: int) -> int:
        return total

    @SchemaRegistry.register_migration("add", from_version=1)
    def summed(x: int, y: int) -> dict[str, int]:
        return {"total": x + y}

    body = sealed(keyless, message(1, "two")).encode()
    assert not edited(body, [1, 2], None, integrity=keyless, broker=broker).unchecked
    with pytest.raises(EditRefusedError, match="payload version 1"):
        edited(body, [1, "two"], None, integrity=keyless, broker=broker)


def test_without_the_actor_arguments_are_not_compared_and_that_is_said() -> None:
    new = edited(sealed(keyless, message(1, 2)).encode(), ["any", "thing", "goes"], None, integrity=keyless)
    assert "declares the actor 'add'" in new.unchecked


@pytest.mark.parametrize(
    ("before", "integrity", "why"),
    [
        (sealed(keyless, message(1, 2)), signing, "It is not signed"),
        (sealed(Integrity(KeyRing.parse(OLD)), message(1, 2)), signing, "It was signed with the key 'old'"),
        (sealed(signing, message(1, 2)), keyless, "set RELIER_SIGNING_KEYS here"),
    ],
    ids=["unsigned", "another key", "no keys here"],
)
def test_a_message_that_nobody_here_may_vouch_for_is_not_edited(
    before: Message[Any], integrity: Integrity, why: str
) -> None:
    with pytest.raises(EditRefusedError, match=why):
        edited(before.encode(), [3, 4], None, integrity=integrity)


@pytest.mark.parametrize("integrity", [signing, keyless], ids=["keys", "no keys"])
def test_a_message_that_was_changed_on_its_way_is_not_edited(integrity: Integrity) -> None:
    data = json.loads(sealed(integrity, message(1, 2)).encode())
    data["args"] = [1, 3]
    with pytest.raises(EditRefusedError, match="may not be vouched for"):
        edited(json.dumps(data).encode(), [3, 4], None, integrity=integrity)


def test_an_unsigned_message_stays_unsigned_while_keys_are_introduced() -> None:
    before = sealed(keyless, message(1, 2))
    after = decoded(edited(before.encode(), [3, 4], None, integrity=migrating).body)
    assert not migrating.examine(after)
    with pytest.raises(Exception, match="not signed"):
        signing.examine(after)


def test_a_message_that_would_be_too_large_is_refused() -> None:
    with pytest.raises(EditRefusedError, match="RELIER_MAX_PAYLOAD_BYTES is 500"):
        edited(sealed(keyless, message(1, 2)).encode(), ["x" * 500], None, integrity=keyless, limit=500)


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(EditRefusedError, match="may not be vouched for"):
        edited(b"\xff\x00", [1], None, integrity=keyless)
