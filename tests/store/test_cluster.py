"""A Redis Cluster: each script goes to the server that has its shard, also while slots move and masters change."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any, cast

import pytest

import relier.store.cluster as cluster_module
import relier.store.connection as connection_module
from relier.settings import Settings
from relier.store import SHARDS, Sending, Store
from relier.store.cluster import ClusterRunner
from relier.store.connection import UNAVAILABLE
from relier.store.quick_lines import QuickLines
from relier.store.scripts import script
from relier.store.topology import slot_of
from tests.servers.groups import ClusterGroup, Member
from tests.waiting import wait_until

MARKERS = [f"rl:t:{{{shard:02d}}}:k" for shard in range(SHARDS)]


@pytest.fixture
def store(cluster: ClusterGroup, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(cluster_module, "SLOT_MOVES", 0.1)
    with closing(Store.from_settings(Settings(**cluster.settings, namespace="t"))) as store:
        yield store


def slot_and_ends(cluster: ClusterGroup, key: str) -> tuple[int, Member, Member]:
    """Return a key's slot, the server that has it, and another one."""
    owner = cluster.owner(key)
    return slot_of(key), owner, next(member for member in cluster.masters() if member is not owner)


@pytest.mark.parametrize("key", ["a", "rl:x:{07}:rec", "{dramatiq}:default", "{}a", "a{", "é{ü}", "{a}{b}"])
def test_slots_are_those_of_the_servers(cluster: ClusterGroup, key: str) -> None:
    assert slot_of(key) == cluster.members[0].ask("CLUSTER", "KEYSLOT", key)


def test_one_round_trip_reaches_every_server(cluster: ClusterGroup, store: Store) -> None:
    store.runner.commands(("SET", key, i) for i, key in enumerate(MARKERS))

    assert store.runner.commands(("GET", key) for key in MARKERS) == [b"%d" % i for i in range(SHARDS)]
    assert all(size > 0 for size in store.runner.everywhere("DBSIZE"))
    assert {name.decode() for page in store.runner.scan("rl:t:*") for name in page} == set(MARKERS)


def test_each_server_learns_scripts_by_itself(cluster: ClusterGroup, store: Store) -> None:
    calls = [(script("glance"), store.keys.shard(shard, ""), ("",)) for shard in range(SHARDS)]
    store.runner.run_many(calls)
    cluster.masters()[1].ask("SCRIPT", "FLUSH")

    assert store.runner.run_many(calls) == [[]] * SHARDS


def test_a_slot_that_has_moved_is_followed(cluster: ClusterGroup, store: Store) -> None:
    key = "rl:t:{11}:k"
    slot, owner, other = slot_and_ends(cluster, key)
    store.runner.command("GET", key)
    generation = store.runner.generation
    try:
        for member in cluster.members:
            member.ask("CLUSTER", "SETSLOT", slot, "NODE", other.ask("CLUSTER", "MYID"))

        store.runner.command("SET", key, "there")

        assert other.ask("GET", key) == b"there"
        assert store.runner.generation > generation  # who has it now may lack what was written last
    finally:
        other.ask("DEL", key)
        for member in cluster.members:
            member.ask("CLUSTER", "SETSLOT", slot, "NODE", owner.ask("CLUSTER", "MYID"))


def test_a_slot_on_its_way_is_asked_for_at_both_ends(cluster: ClusterGroup, store: Store) -> None:
    key = "rl:t:{12}:k"
    slot, owner, other = slot_and_ends(cluster, key)
    try:
        other.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", owner.ask("CLUSTER", "MYID"))
        owner.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", other.ask("CLUSTER", "MYID"))

        store.runner.command("SET", key, "new")

        assert store.runner.command("GET", key) == b"new"
        assert owner.ask("CLUSTER", "COUNTKEYSINSLOT", slot) == 0
        with pytest.raises(UNAVAILABLE):  # Scripts wait until all keys of the slot are at one end.
            store.runner.run(script("glance"), store.keys.shard(12, ""), ("",))
    finally:
        store.runner.command("DEL", key)
        for member in (owner, other):
            member.ask("CLUSTER", "SETSLOT", slot, "STABLE")


def test_a_script_never_stops_half_way_while_its_slot_moves(cluster: ClusterGroup, store: Store) -> None:
    """Given a shard of which every key that a commit names is there, and of which one that it does not name has moved:
    a script would write until it meets that one, and fail."""
    tasks, shard = store.tasks, 12
    sending = Sending("t", shard, "default", "act", b"body")
    fence = tasks.claim("w1", sending, b"n", 0, slot_free=True).fence
    rec, due, meta, dead, events, dlq, end, own = keys = store.keys.shard(shard, "w1")
    for key in (due, dead, dlq, end):
        store.runner.command("ZADD", key, "9000000000000000", "somebody")
    store.runner.command("XADD", events, "*", "a", "b")
    slot, owner, other = slot_and_ends(cluster, rec)
    assert owner.ask("EXISTS", *keys) == len(keys)
    before = owner.ask("HGETALL", meta), owner.ask("ZCARD", own)
    try:
        other.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", owner.ask("CLUSTER", "MYID"))
        owner.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", other.ask("CLUSTER", "MYID"))
        owner.ask("MIGRATE", "127.0.0.1", other.port, store.keys.statistics(shard), 0, 5000)

        with pytest.raises(UNAVAILABLE):
            tasks.commit("w1", sending, fence, hooks=False)
        assert (owner.ask("HGETALL", meta), owner.ask("ZCARD", own)) == before

        for key in owner.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            owner.ask("MIGRATE", "127.0.0.1", other.port, key, 0, 5000)
        with pytest.raises(UNAVAILABLE):
            tasks.commit("w1", sending, fence, hooks=False)
        for member in (other, *cluster.members):
            member.ask("CLUSTER", "SETSLOT", slot, "NODE", other.ask("CLUSTER", "MYID"))

        def completed() -> int:
            with suppress(*UNAVAILABLE):  # The servers may take a moment to agree.
                return tasks.commit("w1", sending, fence, hooks=False) and store.counters()["completed"]
            return 0

        assert wait_until(completed, 30, "the commit where the slot has arrived") == 1
    finally:
        cluster.empty()
        for member in cluster.members:
            member.ask("CLUSTER", "SETSLOT", slot, "NODE", owner.ask("CLUSTER", "MYID"))


def test_no_message_is_lost_between_two_keys_while_its_slot_moves(cluster: ClusterGroup, store: Store) -> None:
    """Given a worker that acknowledges its only message and takes another: its set is gone and made anew meanwhile."""
    queue, messages, held, gone = keys = [f"{{dramatiq}}:{name}" for name in ("q", "q.msgs", "acks", "gone")]
    store.runner.commands([("RPUSH", queue, "b"), ("HSET", messages, "a", "A", "b", "B"), ("SADD", held, "a")])
    store.runner.command("ZADD", gone, 1, "somebody")
    slot, owner, other = slot_and_ends(cluster, queue)
    exchange = script("exchange", "relier.brokers")
    try:
        other.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", owner.ask("CLUSTER", "MYID"))
        owner.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", other.ask("CLUSTER", "MYID"))

        with pytest.raises(UNAVAILABLE):
            store.runner.run(exchange, keys, ("w1", 1, "a"))

        assert owner.ask("LRANGE", queue, 0, -1) == [b"b"]
        assert owner.ask("SISMEMBER", held, "a")
    finally:
        for member in (owner, other):
            member.ask("CLUSTER", "SETSLOT", slot, "STABLE")
    assert store.runner.run(exchange, keys, ("w1", 1, "a")) == [[1], [b"b", b"B"]]


def test_a_push_waits_for_a_slot_that_moves(
    cluster: ClusterGroup, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "SLOT_MOVES", 30.0)
    sending = Sending("t", 12, "default", "act", b"body")
    slot, owner, other = slot_and_ends(cluster, MARKERS[12])
    store.runner.command("SET", MARKERS[12], "there")
    refused = other.ask("INFO", "errorstats").get("errorstat_TRYAGAIN")
    try:
        other.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", owner.ask("CLUSTER", "MYID"))
        owner.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", other.ask("CLUSTER", "MYID"))
        scheduled: list[bool] = []
        pushing = threading.Thread(target=lambda: scheduled.extend(store.tasks.schedule_many([(sending, 1.0)])))
        pushing.start()
        wait_until(lambda: other.ask("INFO", "errorstats").get("errorstat_TRYAGAIN") != refused, 30, "a refusal")
        assert not scheduled
    finally:
        for member in (owner, other):
            member.ask("CLUSTER", "SETSLOT", slot, "STABLE")
    pushing.join(30)
    assert scheduled == [True]


def test_a_server_that_is_away_fails_what_is_its_own(
    cluster: ClusterGroup, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "IDLE", float("inf"))  # else it is noticed before anything is sent
    runner = cast("ClusterRunner", store.runner)
    here, away = MARKERS[0], next(key for key in MARKERS if cluster.owner(key) is not cluster.owner(MARKERS[0]))
    runner.commands(("SET", key, "1") for key in (here, away))
    victim = cluster.owner(away)
    lost = [c for c in runner._known_connections() if c.__dict__.get("relier_place") == ("127.0.0.1", victim.port)]
    for connection in lost:
        cast("Any", connection)._sock.shutdown(socket.SHUT_RDWR)

    replies = runner._exchange([runner._packed("GET", key) for key in (here, away)])

    assert replies[0] == b"1"
    assert lost
    assert isinstance(replies[1], UNAVAILABLE)
    assert runner.command("GET", away) == b"1"


def test_threads_share_lines_to_every_server(store: Store) -> None:
    found: list[Any] = []

    def look() -> None:
        for shard in range(0, SHARDS, 7):
            found.append(store.runner.run_shared(script("glance"), store.keys.shard(shard, ""), ("",)))

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [[]] * 60


def test_quick_lines_ask_every_server(cluster: ClusterGroup, store: Store) -> None:
    lines = QuickLines(lambda: store.client)
    calls = [(script("glance"), store.keys.shard(shard, ""), ("",)) for shard in range(0, SHARDS, 5)]
    with closing(lines):
        assert [lines.run(calls, time.monotonic() + 60) for _ in range(2)] == [[[]] * len(calls)] * 2


def test_subscriptions_are_seen_at_the_server_of_their_slot(cluster: ClusterGroup, store: Store) -> None:
    channel = store.keys.control("host:1:aa")
    owner = cluster.owner(channel)
    with owner.client(protocol=2) as client:
        connection = client.connection_pool.get_connection()
        connection.send_command("SSUBSCRIBE", channel)
        connection.read_response()

        assert store.fleet.present(["host:1:aa", "host:1:bb"]) == {"host:1:aa": True, "host:1:bb": False}
        assert store.fleet.tell("host:1:aa", {"type": "x"})
        assert connection.read_response()[0] == b"smessage"
        connection.disconnect()
