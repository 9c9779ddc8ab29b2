"""A store that lacks what it had confirmed is found out, once."""

from __future__ import annotations

from typing import cast

import pytest
import redis

from relier.store import Store
from relier.store.tide import Tide, rollbacks


@pytest.fixture
def store(client: redis.Redis) -> Store:
    return Store(client)


def gone_back(client: redis.Redis, store: Store, before: bytes) -> None:
    """Put the store where it was: what a promoted replica has, or a backup."""
    client.hset(store.keys.shard(0, "")[2], "tide", before)


def test_a_store_that_goes_on_has_lost_nothing(store: Store) -> None:
    tide = Tide(store.runner, store.keys)

    assert [tide.rise(range(64)) for _ in range(3)] == [[], [], []]
    assert rollbacks(store.runner, store.keys) == []


def test_a_store_that_went_back_is_found_out_once(client: redis.Redis, store: Store) -> None:
    tide, meta = Tide(store.runner, store.keys), store.keys.shard(0, "")[2]
    tide.rise(range(64))
    before = cast("bytes", client.hget(meta, "tide"))
    tide.rise(range(64))
    heard = cast("bytes", client.hget(meta, "tide"))

    gone_back(client, store, before)
    (found,) = tide.rise(range(64))

    assert (found.since, found.until) == (int(before) / 1e6, int(heard) / 1e6)
    assert tide.rise(range(64)) == []
    (told,) = rollbacks(store.runner, store.keys)
    assert (told.shard, told.since, told.until) == (0, found.since, found.until)
    assert store.counters()["rollbacks"] == 1
    assert store.events()[-1]["event"] == "store went back"


def test_an_emptied_store_has_lost_everything(client: redis.Redis, store: Store) -> None:
    tide = Tide(store.runner, store.keys)
    tide.rise([0])

    client.flushall()

    (found,) = tide.rise([0])
    assert found.since == 0


def test_a_second_sweeper_is_no_rollback(store: Store) -> None:
    one, other = Tide(store.runner, store.keys), Tide(store.runner, store.keys)

    assert [tide.rise([5]) for tide in (one, other, one, other)] == [[], [], [], []]


def test_a_clock_that_is_set_back_is_no_rollback(client: redis.Redis, store: Store) -> None:
    tide, meta = Tide(store.runner, store.keys), store.keys.shard(0, "")[2]
    tide.rise([0])
    client.hset(meta, "tide", int(client.hget(meta, "tide") or 0) + 3_600_000_000)  # it was confirmed an hour ahead

    assert [tide.rise([0]) for _ in range(2)] == [[], []]
