"""Limits of admission: many processes with clocks of their own, which use, lose and give back what they leased."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import count

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relier.meter import Meter
from relier.store import Store
from relier.store.admissions import Lease, Limit, Report

SECOND = 1_000_000
NOW = 1_763_600_000 * SECOND + 123_456


class World:
    """A store whose clock the test moves, and processes that push.

    Each has a monotonic clock of its own, which says something else than the others'.
    """

    def __init__(self, store: Store, limit: Limit, processes: int = 4) -> None:
        self.store = store
        self.limit = limit
        self.now = NOW
        self.meters = [self._meter() for _ in range(processes)]
        self.offsets = [1000.0 * i for i in range(processes)]
        #: When tasks were admitted, by the store's clock.
        self.admitted: list[int] = []

    def _meter(self) -> Meter:
        """Return one that leases far more than it should."""
        meter = Meter(self.limit)
        meter.chunk = meter.most = max(1, self.limit.most // 3)
        return meter

    def wait(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)

    def clock(self, process: int) -> float:
        """Return what the monotonic clock of a process says."""
        return self.offsets[process] + (self.now - NOW) / SECOND

    def lease(self, wanted: int, needed: int, report: Report | None = None) -> Lease:
        self.store.admissions.clock = self.now
        return self.store.admissions.lease(self.limit, wanted, needed, report)

    def push(self, process: int, *, tasks: int = 1, there: float = 0.0, back: float = 0.0, lost: bool = False) -> bool:
        """Admit tasks as `relier.admission` does; the request and the reply take time, or the reply is lost."""
        meter, asked_at = self.meters[process], self.clock(process)
        if meter.take(tasks, asked_at):
            self.admitted += [self.now] * tasks
            return True
        if meter.refuses(tasks, asked_at):
            return False
        wanted, told = meter.wanted(tasks, asked_at), meter.report(asked_at)
        self.wait(there)
        lease = self.lease(wanted, tasks, told)
        decided = self.now
        self.wait(back)
        if lost or not meter.receive(lease, tasks, asked_at, told):
            return False
        self.admitted += [decided] * tasks
        return True

    def kill(self, process: int) -> None:
        """End a process with what it leased; another one starts."""
        self.meters[process] = self._meter()

    def most_at_once(self) -> int:
        """Return the largest number of tasks in any interval as long as the window, both ends included."""
        times, window = sorted(self.admitted), round(self.limit.window * SECOND)
        return max((bisect_right(times, at + window) - i for i, at in enumerate(times)), default=0)


Worlds = Callable[..., World]


@pytest.fixture
def worlds(client: redis.Redis) -> Iterator[Worlds]:
    """Call for a limit of its own."""
    numbers, store = count(), Store(client)

    def make(most: int = 20, window: float = 2.0, processes: int = 4) -> World:
        return World(store, Limit(f"actor:a{next(numbers)}", most, window), processes)

    yield make
    store.runner.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), most=st.sampled_from([1, 7, 40]), window=st.sampled_from([0.1, 2.0, 10.0]))
def test_no_interval_has_more_than_the_limit(worlds: Worlds, seed: int, most: int, window: float) -> None:
    """Whatever becomes of processes, requests and replies."""
    world, chance = worlds(most, window), random.Random(seed)
    for _ in range(150):
        process = chance.randrange(4)
        action = chance.random()
        if action < 0.1:
            world.kill(process)
        elif action < 0.3:
            world.wait(chance.choice([0.0001, 0.004, 0.05, 0.6]) * window)
        else:
            slow = chance.choice([0.0, 0.0, 0.001, 0.01]) * window
            tasks = chance.choice([1, 1, 1, 1 + most // 3])
            for _ in range(chance.randrange(1, 3 + most // 4)):
                world.push(process, tasks=tasks, there=slow, back=slow / 2, lost=chance.random() < 0.05)
    assert world.admitted
    assert world.most_at_once() <= most


def test_almost_all_permits_are_used(worlds: Worlds) -> None:
    """By processes that push whenever they may, in steps of a millisecond."""
    world, windows = worlds(500, 2.0, 8), 5
    world.meters = [Meter(world.limit) for _ in range(8)]
    for step in range(windows * 2000):
        world.push(step % 8)
        world.wait(0.001)
    periods = [later - earlier for earlier, later in zip(world.admitted, world.admitted[500:], strict=False)]
    assert world.most_at_once() <= 500
    assert 2 * SECOND * len(periods) / sum(periods) >= 0.97


def test_a_lease_ends_with_its_sub_bucket(worlds: Worlds) -> None:
    world = worlds(2000)
    for _ in range(40):
        lease = world.lease(10, 1)
        assert 0 < lease.usable <= 2.0 / 200
        assert (world.now + round(lease.usable * SECOND)) % (SECOND // 100) == 0
        world.wait(0.0037)


def test_unused_permits_are_taken_back_once(worlds: Worlds) -> None:
    world = worlds(20)
    first = world.lease(20, 1)
    assert (first.granted, world.lease(1, 1).granted) == (20, 0)
    told = Report(epoch=first.epoch, bucket=first.bucket, unused=15)
    assert world.lease(15, 1, told).granted == 15

    world.store.admissions.forget()
    world.wait(0.0001)
    world.lease(20, 1)
    assert world.lease(15, 1, told).granted == 0, "permits of another epoch"


def test_a_refusal_says_when_the_permits_are_free(worlds: Worlds) -> None:
    world = worlds(20)
    world.lease(5, 5)
    world.wait(1)
    world.lease(15, 15)
    few, many = world.lease(5, 5), world.lease(6, 6)
    assert 0.9 < few.opens_in < 1.2 < 1.9 < many.opens_in < 2.2

    world.wait(few.opens_in)
    assert world.lease(5, 5).granted == 5


def test_a_batch_gets_all_its_permits_or_none(worlds: Worlds) -> None:
    world = worlds(20)
    world.lease(12, 12)
    assert world.lease(9, 9).granted == 0
    assert world.lease(30, 8).granted == 8


def test_what_was_let_through_is_counted(worlds: Worlds) -> None:
    world = worlds(20)
    assert world.lease(0, 0, Report(forced=25)).used == 25
    assert world.lease(1, 1).granted == 0
    world.wait(2.2)
    assert world.lease(1, 1).granted == 1


def test_a_clock_that_is_set_back_opens_nothing_and_closes_nothing(worlds: Worlds) -> None:
    world = worlds(20)
    world.lease(20, 20)
    world.wait(-3600)
    assert world.lease(1, 1).granted == 0
    world.wait(2.2)
    assert world.lease(20, 20).granted == 20
    world.wait(3600)
    assert world.lease(20, 20).granted == 20


def test_a_limit_that_nobody_uses_is_forgotten(worlds: Worlds, client: redis.Redis) -> None:
    world = worlds(20)
    world.lease(1, 1)
    idle, world.limit = world.limit, Limit(world.limit.scope, 20, 1.0)
    while (
        world.store.admissions.request(idle, 0, 0, Report())[1]
        != world.store.admissions.request(world.limit, 0, 0, Report())[1]
    ):  # Only those of one shard are looked at.
        world.limit = Limit(world.limit.scope, 20, world.limit.window + 0.1)
    keys = world.store.admissions.request(idle, 0, 0, Report())[1]
    world.wait(10)
    world.lease(1, 1)
    assert client.hexists(keys[0], idle.name) is False
    assert client.hexists(keys[0], world.limit.name) is True


def test_a_limit_of_a_newer_relier_is_left_alone(worlds: Worlds, client: redis.Redis) -> None:
    world = worlds(20)
    key = world.store.admissions.request(world.limit, 0, 0, Report())[1][0]
    client.eval("redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack({2, 'news'}))", 1, key, world.limit.name)
    packed = client.hget(key, world.limit.name)
    with pytest.raises(redis.ResponseError, match="newer"):
        world.lease(1, 1)
    assert client.hget(key, world.limit.name) == packed
    assert world.store.admissions.usages() == []


def test_usages_tell_how_far_limits_are_used(worlds: Worlds) -> None:
    world = worlds(20)
    world.lease(20, 20)
    (usage,) = world.store.admissions.usages()
    assert (usage.scope, usage.used, usage.most, usage.window, usage.sheds) == (world.limit.scope, 20, 20, 2.0, True)
    world.wait(2.2)
    world.store.admissions.clock = world.now
    (usage,) = world.store.admissions.usages()
    assert (usage.used, usage.sheds) == (0, False)


def test_a_process_uses_permits_in_their_sub_bucket_only(worlds: Worlds) -> None:
    world = worlds(20)
    assert world.push(0, there=0.001, back=0.004)
    assert world.meters[0].permits > 0
    world.wait(0.0051)  # A sub-bucket ends after 10 ms, and the request took 5.
    assert not world.meters[0].take(1, world.clock(0))
    before = world.meters[0].permits
    assert world.push(0), "what was not used is given back with the next request"
    assert world.lease(0, 0).used == 2 + world.meters[0].permits
    assert before
