"""What metrics tell of the store: how much there is, who is there, how its server does."""

from __future__ import annotations

import pytest

from relier.brokers.redis import RelierRedisBroker
from relier.collecting import Collection
from relier.settings import Settings
from relier.store import Parking, Store
from relier.store.fleet import Busy
from relier.store.holds import Hold
from relier.store.members import Roll
from relier.store.state import UNKNOWN, Kind, ServerHealth, contents, server_health
from tests import sources
from tests.conftest import SharedServers, skip
from tests.store.desk import SHARD, Desk


def test_an_empty_store_has_nothing(desk: Desk) -> None:
    found = contents(desk.store)
    assert (found.records, found.waiting, found.due, found.due_lag, found.dead_letters) == (0, 0, 0, 0.0, 0)
    assert not found.letters
    assert not found.parked


def test_what_waits_for_its_time_is_not_due(desk: Desk) -> None:
    desk.tasks.schedule(desk.sending("later"), 600.0)
    desk.tasks.schedule(desk.sending("sooner"), 60.0)
    assert (contents(desk.store).waiting, contents(desk.store).due) == (2, 0)
    desk.wait(90.0)
    found = contents(desk.store)
    assert (found.waiting, found.due, found.due_lag) == (2, 1, 30.0)


def test_an_orphan_waits_since_it_was_put_back(desk: Desk) -> None:
    desk.run("w1", "first")
    desk.wait(10.0)
    desk.bury("w1")
    desk.run("w2", "second")
    desk.wait(10.0)
    desk.bury("w2")
    desk.wait(5.0)
    found = contents(desk.store)
    assert found.due == 2
    assert found.due_lag == pytest.approx(15.0, abs=0.001)


def test_a_published_task_is_not_due(desk: Desk) -> None:
    desk.run("w1")
    desk.bury("w1")
    desk.published()
    found = contents(desk.store)
    assert (found.waiting, found.due, found.due_lag) == (1, 0, 0.0)


def test_dead_letters_are_counted_by_kind_until_they_leave(desk: Desk) -> None:
    for task in ("a", "b"):
        desk.fail(desk.run(task=task), task=task)
    assert contents(desk.store).letters == {Kind("default", "act", "ValueError"): 2}
    (place, *_) = desk.store.letters.newest(10)
    desk.store.letters.release([place], "me")
    assert contents(desk.store).letters == {Kind("default", "act", "ValueError"): 1}
    desk.store.letters.purge(desk.store.letters.newest(10), "me")
    assert contents(desk.store).letters == {}
    assert not desk.client.exists(desk.store.keys.letters_by(SHARD))


def test_further_kinds_than_are_kept_are_counted_together(desk: Desk) -> None:
    desk.client.hset(desk.store.keys.letters_by(SHARD), mapping={f"q\na\nreason {i}": 1 for i in range(200)})
    desk.fail(desk.run())
    assert contents(desk.store).letters[Kind("", "", "(other)")] == 1
    desk.store.letters.purge(desk.store.letters.newest(1), "me")
    assert not desk.client.exists(desk.store.keys.letters_by(SHARD)), "it begins anew with an empty DLQ"


def test_dead_letters_of_an_earlier_version_have_an_unknown_reason(desk: Desk) -> None:
    desk.fail(desk.run())
    by = desk.store.keys.letters_by(SHARD)
    (kept,) = desk.client.hgetall(by).items()
    desk.client.delete(by)
    assert contents(desk.store).letters == {Kind("", "", UNKNOWN): 1}
    desk.client.hset(by, *kept)


def test_parked_tasks_are_counted_by_queue_and_actor(desk: Desk) -> None:
    desk.run("w1")
    desk.bury("w1")
    (due,) = desk.due()
    desk.tasks.park([(due, Parking("no consumer"))], 3600.0)
    assert contents(desk.store).parked == {("default", "act"): 1}


def test_the_roll_tells_who_is_there_what_runs_and_who_is_owed(desk: Desk) -> None:
    fleet = desk.store.fleet
    for worker in ("w1", "w2"):
        fleet.register(worker, {"role": "worker", "queues": ["default"], "threads": 8})
    fleet.beat("w1", busy=[Busy("default", "act", 2, 7.0)])
    fleet.declare_dead("w2")
    fleet.hold(Hold("queue", "default", 0.0, "me"))
    roll = Roll(desk.store)
    members = roll.call()
    assert list(members.told) == ["w1"]
    assert members.present == {"w1": False}
    assert members.busy == {"w1": [Busy("default", "act", 2, 7.0)]}
    assert list(members.owed) == ["w2"]
    assert members.longest_owed >= 0.0
    assert list(members.holds.queues) == ["default"]
    assert roll.call().told["w1"] is members.told["w1"], "parsed once"
    fleet.fulfilled("w2")
    assert roll.call().longest_owed == 0.0


def test_the_server_tells_how_it_does(desk: Desk) -> None:
    health = server_health(desk.store)
    assert health.ping > 0
    assert (health.fullest[0] or 0) > 0
    assert health.total("no such thing") is None
    assert isinstance(health.aof_works, bool)


def test_of_several_servers_the_one_in_trouble_is_told() -> None:
    well = {"used_memory": "900", "maxmemory": "0", "aof_enabled": "1", "evicted_keys": "0"}
    full = {"used_memory": "80", "maxmemory": "100", "aof_enabled": "1", "evicted_keys": "3"}
    failing = {**full, "used_memory": "10", "aof_last_write_status": "err"}
    assert ServerHealth(0.1, [well, full]).fullest == (80, 100)
    assert ServerHealth(0.1, [well, full]).total("evicted_keys") == 3
    assert ServerHealth(0.1, [well, full]).aof_works is True
    assert ServerHealth(0.1, [well, full, failing]).aof_works is False
    assert ServerHealth(0.1, [well, {}]).aof_works is None


@pytest.mark.slow
def test_the_masters_of_a_cluster_are_asked_together(request: pytest.FixtureRequest, servers: SharedServers) -> None:
    try:
        server = servers.store("cluster")
    except sources.Unavailable as error:
        skip(request, error)
    settings = Settings(redis_url=server.url, redis_use_cluster=True)
    store, broker = Store.from_settings(settings), RelierRedisBroker(settings=settings)
    found = Collection(store, broker, settings).sheet().samples
    assert dict(found["relier_up"]) == {(): 1}
    assert len(server_health(store).infos) == 3
    assert found.keys() > {"relier_store_memory_bytes", "relier_queue_depth", "relier_workers"}
    broker.close()
    store.close()
