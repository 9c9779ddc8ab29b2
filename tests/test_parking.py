"""An actor is parked when enough different tasks of it failed alike and none succeeded meanwhile."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from relier.failures import RetryPolicy, decide
from relier.holds import lift_actor
from relier.knowledge import FleetView
from relier.parking import lift_what_is_over, park_after, park_if_many
from relier.settings import Settings
from relier.store import Sending, Store, shard_of
from relier.store.alike import count_alike
from tests.store.desk import Desk

OPTIONS = {"park_after": 3}


@pytest.fixture
def store(client: redis.Redis) -> Any:
    store = Store(client, "parking")
    yield store
    store.runner.close()


def fail(store: Store, task: str, fingerprint: str = "f", code: str = "old", **options: Any) -> None:
    process: Any = SimpleNamespace(
        store=store, settings=Settings(), code=code, identity="w1", gate=SimpleNamespace(look=lambda: None)
    )
    run: Any = SimpleNamespace(actor_name="ship", task_id=task)
    park_if_many(process, {**OPTIONS, **options}, run, fingerprint)


def succeed(store: Store, task: str, code: str = "old") -> None:
    sending = Sending(task, shard_of(task), "default", "ship", b"body")
    claim = store.tasks.claim("w1", sending, b"n", 0, slot_free=True)
    assert store.tasks.commit("w1", sending, claim.fence, hooks=False, protections=json.dumps({"ok": code}))


def codes(store: Store) -> tuple[str, ...] | None:
    hold = store.fleet.holds().actors.get("ship")
    return hold.codes if hold else None


def test_three_different_tasks_park_their_actor_and_it_says_why(store: Store) -> None:
    for task in ("a", "a", "a", "b"):
        fail(store, task)
    assert codes(store) is None

    fail(store, "c")

    hold = store.fleet.holds().actors["ship"]
    assert (hold.codes, hold.fingerprint, hold.by) == (("old",), "f", "w1")
    assert hold.reason == "3 of its tasks failed alike, and none succeeded meanwhile"


def test_failures_of_another_kind_or_of_other_code_are_counted_apart(store: Store) -> None:
    for i, (fingerprint, code) in enumerate([("f", "old"), ("f", "new"), ("g", "old"), ("f", "old"), ("f", "new")]):
        fail(store, f"t{i}", fingerprint, code)
    assert codes(store) is None

    fail(store, "t5", "f", "new")

    assert codes(store) == ("new",)


def test_a_success_in_between_begins_a_new_count(store: Store) -> None:
    fail(store, "a")
    fail(store, "b")
    succeed(store, "good")
    fail(store, "c")
    fail(store, "d")
    assert codes(store) is None

    fail(store, "e")

    assert codes(store) == ("old",)


def test_a_success_of_other_code_says_nothing_about_this_one(store: Store) -> None:
    fail(store, "a")
    fail(store, "b")
    succeed(store, "good", code="new")
    fail(store, "c")
    assert codes(store) == ("old",)


def test_resuming_does_not_park_at_once_again(store: Store) -> None:
    for task in "abc":
        fail(store, task)
    assert lift_actor(store, "ship")[0]
    fail(store, "d")
    fail(store, "e")
    assert codes(store) is None
    fail(store, "f")
    assert codes(store) == ("old",)


def test_it_is_off_by_default_and_the_actor_wins_over_the_setting(store: Store) -> None:
    for task in "abcd":
        fail(store, task, park_after=None)
    assert codes(store) is None
    assert [park_after(o, Settings(park_after=7)) for o in ({}, {"park_after": None}, {"park_after": 0}, OPTIONS)] == [
        *(7, 7, 0, 3)
    ]


def test_how_many_are_counted_is_bounded(store: Store) -> None:
    counts = [count_alike(store, "f", "old", f"t{i}") for i in range(1010)]
    assert max(counts) == counts[-1] == 1000


def test_the_store_away_is_no_reason_to_lose_a_failure(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: Any) -> None:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(store.runner, "run", away)
    fail(store, "a")


def test_what_is_parked_for_code_that_is_gone_is_lifted_once_there_is_other_code(store: Store) -> None:
    def arrive(worker: str, code: str) -> None:
        store.fleet.register(worker, {"actors": code, "code": code, "queues": ["default"]}, {"ship": 1})

    def look() -> tuple[str, ...] | None:
        fleet = FleetView(store)
        fleet.look()
        lift_what_is_over(store, fleet)
        return codes(store)

    for task in "abc":
        fail(store, task)
    assert look() == ("old",)  # Nobody is there.
    arrive("w1", "old")
    assert look() == ("old",)
    arrive("w2", "new")
    assert look() == ("old",)  # They are being replaced.
    store.fleet.leave("w1")
    assert look() is None


@pytest.mark.parametrize(
    ("error", "options", "blamed"),
    [
        (TypeError(), {}, True),
        (ValueError(), {}, True),
        (ConnectionError(), {}, False),
        (ValueError(), {"transient": ValueError}, False),
        (TypeError(), {"throws": TypeError}, False),
    ],
)
def test_only_failures_that_neither_pass_nor_were_expected_are_counted(
    error: Exception, options: dict[str, Any], blamed: bool
) -> None:
    assert decide(error, 0, RetryPolicy.of(options)).blames_code is blamed


def test_without_parking_a_success_leaves_no_trace(client: redis.Redis) -> None:
    desk = Desk(client, "parking")
    desk.settle(desk.run(), confirmed=True)
    assert not [name for name in desk.key_names() if name[-1] == "ok"]
    desk.store.runner.close()
