"""`rl audit` on real fleets: after kills, retries, dead letters and purges the account balances exactly."""

from __future__ import annotations

from relier.account import Account
from relier.auditing import take_account
from relier.purging import Purging, Selection
from tests.conformance.conftest import Fleets
from tests.conformance.topologies import FOREIGN, where
from tests.integration.harness import Harness, ids

#: A delay (ms) that no test waits for.
LATER = 3_600_000


def account_of(fleet: Harness) -> Account:
    return take_account(fleet.store, fleet.broker, fleet.settings)


def make_trouble(fleet: Harness) -> int:
    """Kill a worker in the middle of its tasks, let others fail for good or be purged; returns how many were pushed."""
    actors = fleet.actors
    purged = [actors.quick.send_with_options(args=(i,), delay=LATER) for i in range(4)]
    Purging(fleet.store, fleet.broker, fleet.settings, Selection(("default",)), "me").run(["default"])
    victim = fleet.worker(threads=4)
    held = ids(actors.gated.push(fleet.gate()) for _ in range(2))
    fleet.wait(lambda: len(fleet.effects("began")) == 2, what="two running tasks")
    rest = ids(actors.quick.push(i) for i in range(30))
    rest += ids(actors.flaky.push(1) for _ in range(5))
    rest += ids(actors.broken.push(1) for _ in range(3))
    rest += ids(actors.skipping.push() for _ in range(2))
    fleet.worker(threads=4).wait_settled_in()
    victim.kill()
    fleet.wait(lambda: sum(effect.crashes > 0 for effect in fleet.effects("began")) >= 2, what="both running again")
    during = account_of(fleet)
    assert during.adds_up, (during.gaps, during.lost, during.stranded)
    fleet.open_gate()
    return len([*purged, *held, *rest])


@where(("redis", "rabbitmq"), needs="prefetched", never=FOREIGN)
def test_the_account_balances_after_a_storm_and_says_where_a_record_was_deleted(fleets: Fleets) -> None:
    fleet = fleets(heartbeat_ttl=100)
    pushed = make_trouble(fleet)
    counters = fleet.settle(pushed)

    account = account_of(fleet)

    assert account.adds_up, (account.gaps, account.lost, account.stranded)
    assert (account.in_motion, account.difference, account.unattributed, account.on_the_way) == (0, 0, 0, 0)
    assert {place: line.difference for place, line in account.lines.items()} == dict.fromkeys(account.lines, 0)
    assert account.total("accepted") == account.ended == pushed
    assert (account.total("dead_letters"), account.total("discarded")) == (3, counters["discarded"])
    assert counters["crashes"] >= 2

    task = fleet.actors.told.send_with_options(delay=LATER).message_id
    record = fleet.record(task)
    assert record is not None
    (shard,) = (s for s in range(64) if fleet.store.client.hdel(fleet.store.keys.shard(s, "")[0], task))
    account = account_of(fleet)
    assert [tuple(gap) for gap in account.gaps] == [(shard, "default", "told", 1)]
    assert [lost.task_id for lost in account.lost] == [task]
    assert not account.adds_up


@where(("redis", "rabbitmq"), never=FOREIGN)
def test_what_nobody_claimed_yet_is_counted_by_its_queue(fleets: Fleets) -> None:
    fleet = fleets()
    for i in range(7):
        fleet.actors.quick.push(i)
    account = account_of(fleet)
    assert (account.without_record, account.on_the_way, account.adds_up) == (7, 7, True)
    assert account.queues["default"].messages == 7
