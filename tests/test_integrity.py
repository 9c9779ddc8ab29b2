"""The seal of a message: what it covers, what it does not, and who may make one."""

from __future__ import annotations

import copy
import datetime
import json
import pickle
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq import Message
from dramatiq.encoder import Encoder, PickleEncoder
from dramatiq.message import get_encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relier.envelope import HIGHEST_FENCE, OPTION, Fresh, Stamp, republished, stamp_first_hand, stamp_of, stamped
from relier.errors import PayloadIntegrityError, RelierConfigError, UnsignableError
from relier.fixes import likely_fix
from relier.integrity import MUTABLE_OPTIONS, MUTABLE_STAMP, Integrity, covered
from relier.keyring import KeyRing
from relier.settings import Settings
from relier.store import Due, Suspicion, shard_of
from tests.test_canonical import JSON, same

#: The same examples in every run, without a limit to their time: a loaded machine must not make them fail.
steadily = settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])

OLD, NEW = "old:" + 32 * "a", "new:" + 32 * "b"
signing = Integrity(KeyRing.parse(NEW))
keyless = Integrity()


def message(*args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Message[Any]:
    return Message("work", "add", args, kwargs, {"max_retries": 3, **(options or {})}, "7f0a-é", 1763600000000)


def sealed(integrity: Integrity, of: Message[Any]) -> Message[Any]:
    """Return a message as a worker receives it."""
    fresh = stamped(of, Stamp(of.message_id, shard_of(of.message_id), created_ms=of.message_timestamp), fresh=True)
    integrity.seal(fresh)
    return Message.decode(fresh.encode())


PIPED = message(
    1, 2.5, "é\U0001f600", options={"pipe_target": message("then", options={"on_success": "tell"}).asdict()}
)


def changed(received: Message[Any], **fields: Any) -> Message[Any]:
    return Message(**{**received.asdict(), **fields})


def with_stamp(received: Message[Any], **fields: Any) -> Message[Any]:
    stamp = {name: v for name, v in {**received.options[OPTION], **fields}.items() if v is not None}
    return changed(received, options={**received.options, OPTION: stamp})


@pytest.fixture
def encoder() -> Iterator[Any]:
    before = get_encoder()
    yield dramatiq.set_encoder
    dramatiq.set_encoder(before)


# -- what is covered ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("integrity", [signing, keyless], ids=["signature", "checksum"])
@steadily
@given(args=st.lists(JSON, max_size=3), kwargs=st.dictionaries(st.text(), JSON, max_size=3), option=JSON)
def test_what_was_sealed_is_accepted(
    integrity: Integrity, args: list[Any], kwargs: dict[str, Any], option: Any
) -> None:
    received = sealed(integrity, Message("work", "add", tuple(args), kwargs, {"priority": option}))
    assert integrity.examine(received)
    assert integrity.examine(Message.decode(received.encode()))


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything inside a value."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from paths(inner, (*path, key))


#: Every field of a sealed message, nested ones included, but for the closed list.
FIELDS = [
    path
    for path in paths(json.loads(sealed(signing, PIPED).encode()))
    if path != ("options",)
    and not (path[0] == "options" and path[1] in MUTABLE_OPTIONS)
    and not (path[:2] == ("options", OPTION) and path[2:3] and path[2] in MUTABLE_STAMP - {"g": ""}.keys())
]


@pytest.mark.parametrize("change", ["remove", "replace", "add"])
@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_a_change_of_any_field_is_caught(path: tuple[Any, ...], change: str) -> None:
    fields = json.loads(sealed(signing, PIPED).encode())
    place: Any = fields
    for key in path[:-1]:
        place = place[key]
    if change == "replace":
        place[path[-1]] = "something else"
    elif change == "remove":
        del place[path[-1]]
    elif isinstance(place, dict):
        place["another"] = 1
    else:
        place.append(1)
    with pytest.raises((PayloadIntegrityError, dramatiq.DramatiqError)):
        signing.examine(Message.decode(json.dumps(fields).encode()))


def changes_of_one_byte(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield every change of one bit, every loss of a byte, and every place with one byte more."""
    for place in range(len(body)):
        for bit in range(8):
            yield place, body[:place] + bytes([body[place] ^ 1 << bit]) + body[place + 1 :]
        yield place, body[:place] + body[place + 1 :]
        for more in b'0"}x':
            yield place, body[:place] + bytes([more]) + body[place:]


@pytest.mark.parametrize("integrity", [signing, keyless], ids=["signature", "checksum"])
def test_a_change_of_any_byte_is_caught(integrity: Integrity) -> None:
    received = sealed(integrity, PIPED)
    before = json.loads(covered(received))
    name_at = received.encode().index(b'"relier"')
    for place, body in changes_of_one_byte(received.encode()):
        try:
            after: Message[Any] = Message.decode(body)
            integrity.examine(after)
        except (PayloadIntegrityError, dramatiq.DramatiqError):
            continue
        # What is left: another way to write the same, and, without keys, a change of the stamp's own name: then it is
        # a message of plain Dramatiq, which has no checksum.
        if integrity is keyless and name_at <= place <= name_at + len(b'"relier"'):
            continue
        assert same(json.loads(covered(after)), before), body


@steadily
@given(
    eta=JSON, fence=st.integers(0, HIGHEST_FENCE), crashes=st.sampled_from([Suspicion.SUSPECT, Suspicion.LAST]),
    pool=st.booleans(), retries=st.integers(),
)  # fmt: skip
def test_what_changes_on_the_way_is_not_covered(
    eta: Any, fence: int, crashes: Suspicion, pool: bool, retries: int
) -> None:
    received = sealed(signing, PIPED)
    on_its_way = {"eta": eta, "redis_message_id": "1", "retries": retries, "traceback": "…", "requeue_timestamp": 1}
    due = Due("id", 0, fence, "s", crashes, 1, 0, "work", "add", b"")
    copy_of = republished(received, due, "re-queue" if pool else "work")
    for lane in (copy_of, changed(copy_of, queue_name="re-queue" if pool else "work.DQ")):
        assert signing.examine(changed(lane, options={**lane.options, **on_its_way}))
    assert stamp_of(copy_of).fence == fence


def test_the_own_queue_is_covered() -> None:
    received = sealed(signing, PIPED)
    for other in (
        changed(received, queue_name="other"),
        changed(received, queue_name="re-queue"),
        with_stamp(received, q="other"),
        with_stamp(changed(received, queue_name="re-queue"), q="other"),
    ):
        with pytest.raises(PayloadIntegrityError):
            signing.examine(other)


def test_what_a_newer_version_writes_into_the_stamp_is_covered_and_kept() -> None:
    fresh = stamp_first_hand(PIPED)
    fresh.options[OPTION]["z"] = "new"
    signing.seal(fresh)
    received: Message[Any] = Message.decode(fresh.encode())
    due = Due("id", 0, 7, "s", Suspicion.NONE, 1, 0, "work", "add", b"")
    assert republished(received, due, "work").options[OPTION]["z"] == "new"
    assert signing.examine(republished(received, due, "work"))
    with pytest.raises(PayloadIntegrityError):
        signing.examine(with_stamp(received, z="other"))


@pytest.mark.parametrize("fence", [-1, HIGHEST_FENCE + 1, 2**60, 1.5, "1", None])
def test_a_fence_that_is_none_is_refused(fence: Any) -> None:
    """Else the task would take its message id's record, or raise the fences of a shard beyond what Lua can count."""
    received = sealed(signing, PIPED)
    broken = changed(received, options={**received.options, OPTION: {**received.options[OPTION], "f": fence}})
    for integrity in (signing, keyless):
        with pytest.raises(PayloadIntegrityError, match="stamp is broken"):
            integrity.examine(broken)


# -- keys -----------------------------------------------------------------------------------------------------------


def test_every_key_of_the_ring_verifies_and_the_first_one_signs() -> None:
    before, between, after = (Integrity(KeyRing.parse(keys)) for keys in (OLD, f"{OLD},{NEW}", f"{NEW},{OLD}"))
    assert between.examine(sealed(before, PIPED))
    assert between.examine(sealed(after, PIPED))
    assert sealed(between, PIPED).options[OPTION]["g"][0] == "old"
    assert sealed(after, PIPED).options[OPTION]["g"][0] == "new"
    with pytest.raises(PayloadIntegrityError, match="signed with the key 'new'"):
        before.examine(sealed(after, PIPED))


def test_a_key_of_the_same_name_and_another_secret_does_not_verify() -> None:
    other = Integrity(KeyRing.parse("new:" + 32 * "x"))
    with pytest.raises(PayloadIntegrityError, match="signature does not fit"):
        signing.examine(sealed(other, PIPED))


@pytest.mark.parametrize(
    "seal",
    [["new"], ["new", "0" * 64, ""], ["new", 1], [], {}, 7, True, "", "é", ["new", "é"], ["new", "\ud800"], [None, ""]],
    ids=repr,
)
def test_a_malformed_seal_is_refused(seal: Any) -> None:
    for integrity in (signing, Integrity(signing.keys, required=False)):
        with pytest.raises(PayloadIntegrityError):
            integrity.examine(with_stamp(sealed(signing, PIPED), g=seal))


def test_unsigned_messages_are_refused_unless_signatures_are_not_required_yet() -> None:
    migrating = Integrity(signing.keys, required=False)
    unsealed = Message.decode(stamp_first_hand(PIPED, fresh=False).encode())
    for unsigned in (PIPED, unsealed, sealed(keyless, PIPED)):
        with pytest.raises(PayloadIntegrityError, match="not signed"):
            signing.examine(unsigned)
        assert migrating.examine(unsigned) is False
    for bad in (changed(sealed(signing, PIPED), args=(9,)), changed(sealed(keyless, PIPED), args=(9,))):
        with pytest.raises(PayloadIntegrityError, match="does not fit"):
            migrating.examine(bad)
    with pytest.raises(PayloadIntegrityError, match="missing"):
        migrating.examine(with_stamp(sealed(signing, PIPED), g=None))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("queue_name", 1), ("actor_name", ["add"]), ("actor_name", None), ("message_id", {}), ("kwargs", []),
        ("actor_name", "\udcff"), ("message_id", "m\udcff"), ("queue_name", "q\udcff"),
        ("options", []), ("options", None), ("message_timestamp", "1"), ("message_timestamp", None),
    ],
)  # fmt: skip
def test_what_has_not_the_form_of_a_message_is_refused(field: str, value: Any) -> None:
    for integrity in (signing, keyless):
        with pytest.raises(PayloadIntegrityError, match="form of a message"):
            integrity.examine(changed(PIPED, **{field: value}))


@pytest.mark.parametrize(
    ("bad", "examiner", "fix"),
    [
        (PIPED, signing, "give it RELIER_SIGNING_KEYS"),
        (sealed(signing, PIPED), Integrity(KeyRing.parse(OLD)), "was left out of a rotation"),
        (changed(sealed(signing, PIPED), args=(9,)), signing, "different secrets under one name"),
        (changed(sealed(keyless, PIPED), args=(9,)), keyless, "look at the storage"),
        (with_stamp(sealed(keyless, PIPED), g=None), keyless, "look at the storage"),
        (changed(PIPED, options={OPTION: 7}), keyless, "look at the storage"),
    ],
    ids=["unsigned", "unknown key", "signature", "checksum", "seal", "stamp"],
)
def test_each_way_to_be_refused_has_its_likely_fix(bad: Message[Any], examiner: Integrity, fix: str) -> None:
    with pytest.raises(PayloadIntegrityError) as refusal:
        examiner.examine(bad)
    found = likely_fix("PayloadIntegrityError", str(refusal.value))
    assert fix in found
    assert found.lower().endswith("never retry it blindly.")


def test_a_process_without_keys_accepts_what_it_cannot_verify_and_catches_corruption() -> None:
    assert keyless.examine(sealed(signing, PIPED))
    assert keyless.examine(PIPED)
    with pytest.raises(PayloadIntegrityError, match="checksum does not fit"):
        keyless.examine(changed(sealed(keyless, PIPED), args=(9,)))


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ("hidden", "key 1 is not name:secret"),
        ("a:b,", ""),
        ("a:b,,c:d", "key 2 is not name:secret"),
        ("a:", "key 1 has no secret"),
        (":b", "key 1 needs a name"),
        ("a b:c", "key 1 needs a name"),
        ("a:b,a:c", "key 2 has the name of an earlier one"),
        ("a:b:c", "key 1 has a colon or a blank"),
        ("a:b c:d", "key 1 has a colon or a blank"),
        ("x" * 33 + ":b", "key 1 needs a name"),
    ],
)
def test_bad_keys_are_named_by_their_place_and_never_shown(keys: str, problem: str) -> None:
    if not problem:
        assert Settings(signing_keys=keys).signing_required
        return
    with pytest.raises(RelierConfigError) as refused:
        Settings(signing_keys=keys)
    assert str(refused.value).startswith(f"RELIER_SIGNING_KEYS=***: {problem}")
    assert keys not in str(refused.value)


def test_signatures_cannot_be_required_without_keys() -> None:
    with pytest.raises(RelierConfigError, match="needs RELIER_SIGNING_KEYS"):
        Settings(signing_required=True)


def test_no_secret_shows_in_what_is_printed() -> None:
    ring = KeyRing.parse("a:hidden-value")
    shown = f"{ring!r} {ring.signer!r} {ring.keys!r} {vars(ring)!r} {Settings(signing_keys='a:hidden-value')!r}"
    assert "hidden" not in shown
    with pytest.raises(PayloadIntegrityError) as refused:
        Integrity(ring).examine(with_stamp(sealed(Integrity(ring), PIPED), id="other"))
    assert "hidden" not in repr(refused.value)


# -- what can be sealed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (float("nan"), "message['args'][0] is nan"),
        ({"a": ["\ud800"]}, "message['args'][0]['a'][0] contains a lone surrogate"),
    ],
)
def test_what_has_no_canonical_form_is_not_signed_and_has_no_checksum(value: Any, place: str) -> None:
    with pytest.raises(UnsignableError) as refused:
        sealed(signing, message(value))
    assert place in str(refused.value)
    received = sealed(keyless, message(value))
    assert "g" not in received.options[OPTION]
    assert keyless.examine(received)


def test_numbers_as_keys_are_signed_as_the_text_that_json_makes_of_them() -> None:
    assert signing.examine(sealed(signing, message({1: "a", 10: "b", 9: "c"})))


def test_values_of_another_encoder_are_signed(encoder: Any) -> None:
    encoder(PickleEncoder())
    received = sealed(signing, message(datetime.date(2024, 1, 1), b"raw", {1, 2}, (3, 4)))
    assert signing.examine(received)
    assert keyless.examine(sealed(keyless, message({1, 2})))
    with pytest.raises(PayloadIntegrityError):
        signing.examine(changed(received, args=(datetime.date(2024, 1, 2), *received.args[1:])))
    with pytest.raises(UnsignableError, match="of type ABCMeta"):
        sealed(signing, message(Encoder))


def test_an_encoder_that_does_not_give_back_what_it_was_given_is_refused(encoder: Any) -> None:
    class Growing(PickleEncoder):
        def decode(self, data: bytes) -> dict[str, Any]:
            fields = super().decode(data)
            return {**fields, "args": [*fields["args"], 1]}

    encoder(Growing())
    with pytest.raises(UnsignableError, match="Growing does not give back"):
        sealed(signing, message())


# -- who may seal ---------------------------------------------------------------------------------------------------


def test_only_what_this_process_enqueues_first_hand_is_sealed() -> None:
    received = sealed(keyless, PIPED)
    signing.seal(received)
    assert isinstance(received.options[OPTION]["g"], str)
    for arrived in (Message.decode(stamp_first_hand(PIPED).encode()), PIPED):
        signing.seal(arrived)
        assert "g" not in arrived.options.get(OPTION, {})


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_fresh_stamp_does_not_survive_its_encoding(protocol: int) -> None:
    fresh = stamp_first_hand(PIPED).options[OPTION]
    assert type(fresh) is Fresh
    assert type(pickle.loads(pickle.dumps(fresh, protocol))) is dict
    assert type(copy.deepcopy(fresh)) is type(copy.copy(fresh)) is Fresh
