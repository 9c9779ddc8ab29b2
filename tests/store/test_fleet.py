"""Workers as the store knows them: registration, beats, death, obligations, leases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from relier.store import Store
from relier.store.fleet import Busy, Fleet
from relier.store.objective import Objective


@pytest.fixture
def store(client: redis.Redis) -> Iterator[Store]:
    store = Store(client)
    yield store
    store.runner.close()


@pytest.fixture
def fleet(store: Store) -> Fleet:
    return store.fleet


def test_a_worker_is_known_by_what_it_told(fleet: Fleet) -> None:
    assert fleet.register("w1", {"queues": ["default"]})
    assert fleet.workers() == {"w1": {"queues": ["default"]}}


def test_each_beat_counts_one_further(fleet: Fleet) -> None:
    fleet.register("w1", {})
    assert [fleet.beat("w1").answer for _ in range(3)] == ["ok"] * 3
    assert fleet.observe().beats == {"w1": 3}


def test_a_beat_tells_what_runs_until_the_worker_is_idle_or_gone(fleet: Fleet) -> None:
    busy = [Busy("default", "act", 3, 1.5), Busy("other", "act", 1, 0.25)]
    for worker in ("w1", "w2"):
        fleet.register(worker, {})
        fleet.beat(worker, busy=busy)
    assert fleet.busy() == {"w1": busy, "w2": busy}
    fleet.beat("w1")
    fleet.declare_dead("w2")
    assert fleet.busy() == {}


def test_registering_again_keeps_the_beats(fleet: Fleet) -> None:
    fleet.register("w1", {})
    fleet.beat("w1")
    fleet.register("w1", {"queues": ["other"]})
    assert fleet.observe().beats == {"w1": 1}
    assert fleet.workers()["w1"] == {"queues": ["other"]}


def test_a_worker_that_the_store_lost_is_told_to_register_again(fleet: Fleet) -> None:
    assert fleet.beat("w1").answer == "unknown"
    assert fleet.observe().beats == {}


def test_a_worker_is_declared_dead_by_one_caller_and_leaves_an_obligation(fleet: Fleet) -> None:
    fleet.register("w1", {"broker_id": "b1"})

    assert [fleet.declare_dead("w1") for _ in range(2)] == [True, False]

    seen = fleet.observe()
    assert (seen.beats, seen.obligations) == ({}, ("w1",))
    owed = fleet.obligation("w1")
    assert owed is not None
    assert (owed["how"], owed["told"]) == ("crash", {"broker_id": "b1"})


def test_a_dead_identity_neither_beats_nor_registers_again(fleet: Fleet) -> None:
    fleet.register("w1", {})
    fleet.declare_dead("w1")
    assert fleet.beat("w1").answer == "gone"
    assert not fleet.register("w1", {})
    assert fleet.workers() == {}


def test_an_obligation_stays_until_it_is_fulfilled(fleet: Fleet) -> None:
    fleet.register("w1", {})
    fleet.declare_dead("w1")
    fleet.fulfilled("w1")
    assert (fleet.observe().obligations, fleet.obligation("w1")) == ((), None)
    assert fleet.beat("w1").answer == "gone"


def test_what_a_worker_leaves_behind_is_owed_without_blame(fleet: Fleet) -> None:
    fleet.register("w1", {})
    assert fleet.leave("w1")
    assert fleet.observe().obligations == ("w1",)
    assert not fleet.declare_dead("w1")
    owed = fleet.obligation("w1")
    assert owed is not None
    assert owed["how"] == "left"


def test_a_worker_that_never_registered_is_not_declared_dead(fleet: Fleet) -> None:
    assert not fleet.declare_dead("w1")


def test_partings_are_forgotten_after_a_day(fleet: Fleet, store: Store, client: redis.Redis) -> None:
    fleet.register("w1", {})
    fleet.declare_dead("w1")
    gone = store.keys.fleet[2]
    client.zincrby(gone, -86_401e6, "w1")
    fleet.register("w2", {})
    fleet.declare_dead("w2")
    assert client.zrange(gone, 0, -1) == [b"w2"]


def test_a_lease_is_taken_only_by_who_saw_what_it_is(fleet: Fleet) -> None:
    assert fleet.lease([("watch", "", "w1|1"), ("0", "", "w1|1")]) == {"watch": "w1|1", "0": "w1|1"}
    assert fleet.lease([("watch", "", "w2|1")])["watch"] == "w1|1"
    assert fleet.lease([("watch", "w1|1", "w1|2")])["watch"] == "w1|2"
    assert fleet.lease([("watch", "w1|1", "w2|1")])["watch"] == "w1|2"
    assert fleet.lease([("watch", "w1|2", "w2|1")])["watch"] == "w2|1"


def test_a_lease_is_given_back_by_its_holder_only(fleet: Fleet) -> None:
    fleet.lease([("watch", "", "w1|1")])
    assert fleet.lease([("watch", "w2|1", "")]) == {"watch": "w1|1"}
    assert fleet.lease([("watch", "w1|1", "")]) == {}


def test_format_and_shards_are_recorded_at_the_first_start(fleet: Fleet) -> None:
    assert fleet.format(1, 64) == (1, 64)
    assert fleet.format(2, 128) == (1, 64)


def test_presence_is_a_subscription_to_the_workers_channel(fleet: Fleet, store: Store, client: redis.Redis) -> None:
    with client.pubsub() as subscription:
        subscription.subscribe(store.keys.control("w1"))
        subscription.get_message(timeout=60)
        assert fleet.present(["w1", "w2"]) == {"w1": True, "w2": False}
        assert fleet.tell("w1", {"type": "cancel"})
        assert not fleet.tell("w2", {"type": "cancel"})
    assert fleet.present([]) == {}


def test_the_names_of_actors_are_kept_once_for_all_workers_of_a_release(fleet: Fleet) -> None:
    for worker in ("w1", "w2"):
        fleet.register(worker, {"actors": "digest"}, {"send": 1, "resize": 3})
    workers, actors, _ = fleet.knowledge()
    assert set(workers) == {"w1", "w2"}
    assert actors == {"digest": {"send": 1, "resize": 3}}


def test_what_an_older_relier_told_of_its_actors_says_nothing_of_their_versions(
    fleet: Fleet, store: Store, client: redis.Redis
) -> None:
    client.hset(store.keys.fleet[7], "digest", '["send", "resize"]')
    assert fleet.knowledge()[1] == {"digest": {"send": None, "resize": None}}


def test_the_actors_of_releases_that_nobody_runs_any_more_are_dropped(fleet: Fleet) -> None:
    for release in range(70):
        fleet.register(f"w{release}", {"actors": f"release-{release:03}"}, {"send": 1})
        if release > 1:
            fleet.declare_dead(f"w{release}")
    actors = fleet.knowledge()[1]
    assert {"release-000", "release-001", "release-069"} <= set(actors)
    assert len(actors) < 60


def promised(fleet: Fleet, worker: str, began: float, **objectives: Objective) -> None:
    fleet.register(worker, {"started_at": began}, objectives=objectives)


def test_what_actors_promise_is_known_when_no_worker_lives_any_more(fleet: Fleet) -> None:
    promised(fleet, "w1", 1.0, mail=Objective(0.9, 2.5), pay=Objective(latency=5), other=Objective())
    fleet.declare_dead("w1")
    assert fleet.objectives() == {"mail": Objective(0.9, 2.5), "pay": Objective(latency=5)}


def test_of_two_releases_the_worker_that_began_last_says_what_its_actors_promise(fleet: Fleet) -> None:
    promised(fleet, "old", 1763600000.123456, mail=Objective(0.9), pay=Objective(0.9))
    promised(fleet, "new", 1763600000.123457, mail=Objective(0.99), pay=Objective())
    promised(fleet, "old", 1763600000.123456, mail=Objective(0.9), pay=Objective(0.9))
    assert fleet.objectives() == {"mail": Objective(0.99)}
    promised(fleet, "newest", 1763600000.5, pay=Objective(0.5))
    assert fleet.objectives() == {"mail": Objective(0.99), "pay": Objective(0.5)}


def test_of_so_many_actors_the_objectives_are_kept_and_of_no_more(fleet: Fleet) -> None:
    promised(fleet, "w1", 1.0, **{f"actor-{i}": Objective(0.9) for i in range(1010)})
    assert len(fleet.objectives()) == 1000
    promised(fleet, "w1", 1.0, **{"actor-3": Objective(0.8)})
    assert fleet.objectives()["actor-3"] == Objective(0.8)
