"""What must be true when the storm is over."""

from __future__ import annotations

from collections import Counter

import redis

from benchmarks.storm.load import Load
from relier.auditing import take_account
from tests.integration.harness import Harness
from tests.waiting import wait_until

#: How long (s) the fleet may take to end everything once the storm is over.
PATIENCE = 180.0


def findings(fleet: Harness, load: Load) -> list[str]:
    """Wait until all is quiet; return what is wrong."""
    state = "?"

    def is_quiet() -> bool:
        nonlocal state
        try:
            state = fleet.unsettled(fleet.store.counters().get("accepted", 0))
        except (redis.RedisError, OSError) as error:  # A connection that the storm cut.
            state = repr(error)
        return not state

    try:
        wait_until(is_quiet, PATIENCE, "quiet")
    except AssertionError:
        return [f"stuck after {PATIENCE:g} s: {state[:2000]}"]
    counters = Counter(fleet.check())
    return _account(fleet, load, counters)


def _account(fleet: Harness, load: Load, counters: Counter[str]) -> list[str]:
    """Each task that ran was accepted once and completed once; none that was sent is missing."""
    ran = {effect.task for effect in fleet.effects() if effect.what in ("ran", "told")}
    found = []
    if lost := set(load.sent) - ran:
        found.append(f"{len(lost)} tasks lost, e.g. {sorted(lost)[:3]}")
    if counters["accepted"] != len(ran):
        found.append(f"{counters['accepted']} tasks accepted, but {len(ran)} ran: {_history(fleet)}")
    if counters["completed"] != counters["accepted"]:
        found.append(f"{counters['accepted']} tasks accepted, but {counters['completed']} completed: {_ends(fleet)}")
    fewest = len(load.sent) + load.follow_ups
    most = fewest + 3 * load.unsure
    if not fewest <= counters["accepted"] <= most:
        found.append(f"{counters['accepted']} tasks accepted, but {fewest} to {most} were enqueued")
    found += _audited(fleet)
    events = Counter(event["event"] for event in fleet.store.events(100_000))
    found += [f"event {name!r}: {events[name]}" for name in ("store lost data", "unknown copy") if events[name]]
    return found


def _audited(fleet: Harness) -> list[str]:
    """What `rl audit` finds: now that nothing moves, it has to balance exactly, by queue and actor."""
    account = take_account(fleet.store, fleet.broker, fleet.settings)
    found = [f"rl audit: {gap}" for gap in (*account.gaps, *account.lost, *account.stranded)]
    loose = {name: n for name in ("in_motion", "on_the_way", "unattributed") if (n := getattr(account, name))}
    return found + ([f"rl audit, although nothing moves: {loose}"] if loose else [])


def _ends(fleet: Harness) -> str:
    return f"dead letters {Counter(fleet.dead_ones())}, counters {fleet.store.counters()}"


def _history(fleet: Harness) -> str:
    return f"events {Counter(event['event'] for event in fleet.store.events(100_000))}"
