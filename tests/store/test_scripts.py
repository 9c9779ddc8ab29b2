"""What holds for every script: namespaces, slots, the script cache, newer records."""

from __future__ import annotations

import pytest
import redis

from relier.store import Verdict
from tests.store.desk import NOW, SECOND, SHARD, Desk
from tests.store.look import look


def test_namespaces_do_not_meet(desk: Desk, client: redis.Redis) -> None:
    other = Desk(client, "other")
    fence = desk.run("w1")
    assert other.find() is None
    assert other.claim("w2").verdict is Verdict.GRANTED
    other.bury("w1")
    assert desk.commit(fence)
    assert (desk.count("completed"), other.count("completed")) == (1, 0)
    other.store.fleet.register("w1", {})
    assert desk.store.fleet.workers() == {}
    assert {key[1] for key in desk.key_names()} == {"relier", "other"}
    other.store.runner.close()


def test_every_key_is_in_its_shards_slot(desk: Desk) -> None:
    desk.fail(desk.run("w1"))
    desk.bury("w1")
    assert {key[2] for key in desk.key_names()} == {"{07}"}


def test_a_lost_script_cache_is_not_noticed(desk: Desk) -> None:
    fence = desk.run()
    desk.client.script_flush()
    assert desk.commit(fence)


def test_events_are_told_in_their_order(desk: Desk) -> None:
    desk.run("w1", max_resurrections=0)
    desk.bury("w1")
    desk.wait(1)
    desk.run("w2", "u")
    desk.bury("w2")
    assert desk.events() == ["crashed", "dead", "crashed"]


NEWER_CALLS = {
    "claim": lambda desk: desk.claim("w2"),
    "commit": lambda desk: desk.commit(NOW),
    "fail": lambda desk: desk.fail(NOW),
    "discard": lambda desk: desk.tasks.discard("w1", desk.sending(), NOW, "skipped"),
    "discard unclaimed": lambda desk: desk.tasks.discard("w1", desk.sending(), 0, "max_age"),
    "hand over": lambda desk: desk.tasks.hand_over("w1", desk.sending(), NOW, "drain"),
    "settle": lambda desk: desk.settle(NOW, confirmed=True),
    "adopt": lambda desk: desk.tasks.adopt("w1", desk.sending(), NOW + 9),
    "bury": lambda desk: desk.bury("w1"),
    "reconcile": lambda desk: desk.tasks.reconcile("w1", desk.wait(1), {SHARD: []}),
    "reconcile, local": lambda desk: desk.tasks.reconcile("w1", desk.wait(1), {SHARD: [("t", NOW)]}),
    "due": lambda desk: desk.due(),
    "schedule": lambda desk: desk.tasks.schedule(desk.sending(), 0),
    "dead_letter": lambda desk: desk.tasks.dead_letter(desk.sending(), "ActorNotFound", b""),
    "cancel": lambda desk: desk.tasks.hold("t", "cancel", "somebody", SHARD),
}


@pytest.mark.parametrize("call", NEWER_CALLS)
def test_a_record_of_a_newer_format_is_left_alone(client: redis.Redis, call: str) -> None:
    desk = Desk(client)
    desk.run("w1")
    records, due = desk.store.keys.shard(SHARD, "")[:2]
    client.eval("redis.call('HSET', KEYS[1], 't', cmsgpack.pack({2, 'news'}))", 1, records)
    client.zadd(due, {"t": NOW - SECOND})
    packed, owned = client.hget(records, "t"), desk.store.keys.shard(SHARD, "w1")[-1]

    NEWER_CALLS[call](desk)

    assert client.hget(records, "t") == packed
    assert client.zscore(due, "t") is not None
    assert client.zrange(owned, 0, -1) == [b"t"]
    desk.store.runner.close()


def test_a_claim_on_a_newer_record_says_so(client: redis.Redis) -> None:
    desk = Desk(client)
    client.eval("redis.call('HSET', KEYS[1], 't', cmsgpack.pack({2}))", 1, desk.store.keys.shard(SHARD, "")[0])
    assert desk.claim().verdict is Verdict.NEWER
    desk.store.runner.close()


def test_looking_agrees_with_the_store(desk: Desk) -> None:
    desk.run("w1")
    seen = look(desk.store, [SHARD], ["w1"])
    assert seen.records["t"].fence == desk.record().fence
    assert seen.owned == {(SHARD, "w1"): {"t"}}
