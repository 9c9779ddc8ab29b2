from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import redis

from relier.settings import Settings
from relier.store import Store
from relier.store.fleet import Fleet
from relier.store.holds import NO_HOLDS, Hold, Holds


@pytest.fixture
def store(settings: Settings, client: redis.Redis) -> Iterator[Store]:
    with closing(Store.from_settings(settings)) as store:
        yield store


@pytest.fixture
def fleet(store: Store) -> Fleet:
    return store.fleet


def paused(queue: str, reason: str = "") -> Hold:
    return Hold("queue", queue, 0.0, "me", reason)


def parked(actor: str, *codes: str) -> Hold:
    return Hold("actor", actor, 0.0, "me", "", "f1", codes)


def test_without_a_hold_nothing_is_held(fleet: Fleet) -> None:
    fleet.register("w1", {})
    assert fleet.holds() == NO_HOLDS
    assert fleet.beat("w1").holds is None
    assert not NO_HOLDS.why("default", "send")


def test_a_hold_says_since_when_by_whom_and_why(fleet: Fleet) -> None:
    done, hold = fleet.hold(paused("default", "mit Ümläuten\nund mehr"))
    assert done
    assert fleet.holds().queues == {"default": hold}
    assert (hold.name, hold.by, hold.reason, hold.codes) == ("default", "me", "mit Ümläuten\nund mehr", ())
    assert hold.since > 1.7e9


def test_a_hold_that_is_there_stays_as_it_is(fleet: Fleet) -> None:
    _, first = fleet.hold(paused("default", "first"))
    assert fleet.hold(paused("default", "second")) == (False, first)
    assert fleet.holds().queues == {"default": first}


def test_each_worker_learns_once_of_each_change_by_its_beat(fleet: Fleet) -> None:
    fleet.register("w1", {})
    known = ""
    changes: list[Callable[[], object]] = [
        lambda: fleet.hold(paused("a")),
        lambda: fleet.hold(parked("send")),
        lambda: fleet.lift("queue", "a"),
        lambda: fleet.lift("actor", "send"),
        lambda: fleet.hold(paused("a")),
    ]
    for change in changes:
        change()
        found = fleet.beat("w1", known)
        assert found.answer == "ok"
        assert found.holds == fleet.holds()
        known = found.holds.version if found.holds else ""
        assert fleet.beat("w1", known).holds is None


def test_who_is_not_known_learns_it_as_well(fleet: Fleet) -> None:
    fleet.hold(paused("a"))
    assert fleet.beat("w1") == ("unknown", fleet.holds())


def test_a_sweeper_sees_it_with_the_fleet(fleet: Fleet) -> None:
    fleet.hold(paused("a"))
    assert fleet.knowledge()[2] == fleet.holds()


def test_a_lift_that_was_meant_for_an_earlier_hold_changes_nothing(fleet: Fleet) -> None:
    _, first = fleet.hold(parked("send"))
    assert fleet.lift("actor", "send", only=first) == (True, first)
    assert fleet.lift("actor", "send", only=first) == (False, None)
    _, second = fleet.hold(parked("send"))

    assert fleet.lift("actor", "send", only=first) == (False, second)

    assert fleet.holds().actors == {"send": second}
    assert fleet.lift("actor", "send") == (True, second)
    assert fleet.holds() == NO_HOLDS


def test_a_queue_and_an_actor_of_one_name_are_two_holds(fleet: Fleet) -> None:
    fleet.hold(paused("send"))
    fleet.hold(parked("send"))
    fleet.lift("queue", "send")
    assert set(fleet.holds().actors) == {"send"}
    assert not fleet.holds().queues


def test_the_reason_is_that_of_the_queue_first(fleet: Fleet) -> None:
    fleet.hold(paused("default"))
    fleet.hold(parked("send"))
    holds = fleet.holds()
    assert [holds.why("default", "send"), holds.why("other", "send"), holds.why("other", "resize")] == [
        "paused",
        "parked",
        "",
    ]


def test_an_actor_is_parked_for_the_codes_that_failed(fleet: Fleet) -> None:
    fleet.hold(parked("send", "old"))
    fleet.hold(parked("send", "older"))
    assert fleet.hold(parked("send", "old"))[0] is False

    (hold,) = fleet.holds().actors.values()
    assert hold.codes == ("old", "older")
    why = [fleet.holds().why("q", "send", codes) for codes in (["old"], ["old", "older"], ["old", "new"], ["new"])]
    assert why == ["parked", "parked", "", ""]


def test_one_that_is_parked_for_every_code_stays_so(fleet: Fleet) -> None:
    fleet.hold(parked("send", "old"))
    assert fleet.hold(parked("send"))[0]
    assert fleet.hold(parked("send", "new"))[0] is False
    assert Holds.why(fleet.holds(), "q", "send", ["any"]) == "parked"
