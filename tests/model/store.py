"""The store's operations, one function per Lua script: (store, arguments) → (verdict, store).

`now` is the server's clock. A nonce is stood for by the fence of the grant that it was given.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.model.rules import Rules
from tests.model.state import NOBODY, Mark, Record, Store

Reply = tuple[str, Store]

#: Of a record that nothing is to publish.
NOT_DUE: Any = {"due": False, "ahead": False}


def is_dead(store: Store, identity: int) -> bool:
    """Say whether the identity is in this shard's dead set."""
    return store.stage(identity) in ("buried", "gone")


class Asking(NamedTuple):
    """A claim: who asks and when, the nonce, the copy's stamp, whether the task is a follow-up."""

    caller: int
    nonce: int
    stamp: int
    asked: Mark
    follow_up: bool


def claim(rules: Rules, store: Store, now: int, asking: Asking) -> Reply:
    caller, stamp = asking.caller, asking.stamp
    record = store.record
    if rules.dead_set and is_dead(store, caller):
        return "fenced", store
    if record is None:
        if stamp > 0 and stamp <= store.floor:
            return "settled", store
        sticky = stamp > 0 or (asking.follow_up and rules.sticky_follow_up)
        return "granted", _grant(store, now, asking, Record("s", stamp, sticky=sticky))
    if stamp > record.fence and (record.status in "sr" or not rules.ended_is_final):
        return "granted", _grant(store, now, asking, record._replace(sticky=True))
    if record.status == "s":
        return _claim_waiting(store, record, now, asking)
    if record.status == "r":
        return _claim_running(rules, store, record, now, asking)
    if record.status == "h":
        return _claim_hooks(rules, store, record, now, asking)
    return "settled", _mark_sticky(store, record)


def _claim_waiting(store: Store, record: Record, now: int, asking: Asking) -> Reply:
    if asking.stamp < record.fence:
        return "stale", _mark_sticky(store, record)
    return "granted", _grant(store, now, asking, record._replace(sticky=True))


def _claim_running(rules: Rules, store: Store, record: Record, now: int, asking: Asking) -> Reply:
    if record.owner == asking.caller and (asking.nonce == record.fence or not rules.nonce):
        return "granted", store
    if is_dead(store, record.owner):
        return "granted", _grant(store, now, asking, record._replace(sticky=True, crashes=record.crashes + 1))
    return "busy", _mark_sticky(store, record)


def _claim_hooks(rules: Rules, store: Store, record: Record, now: int, asking: Asking) -> Reply:
    if record.owner == asking.caller and (asking.nonce == record.fence or not rules.nonce):
        return "replay", store
    if record.owner == NOBODY or is_dead(store, record.owner):
        fence = max(store.floor + 1, now)
        owned = record._replace(owner=asking.caller, fence=fence, asked=asking.asked, **NOT_DUE)
        owned = owned._replace(sticky=True)
        return "replay", store._replace(record=owned, floor=fence)
    return "busy", _mark_sticky(store, record)


def decline(store: Store, now: int, caller: int, stamp: int) -> Reply:
    """Take custody of a task whose actor the caller lacks; it is due at once."""
    record = store.record
    if is_dead(store, caller):
        return "fenced", store
    if record is None:
        if stamp > 0 and stamp <= store.floor:
            return "settled", store
        return "declined", _release(store, Record("s", stamp), now)
    if stamp > record.fence and record.status in "sr":
        return "declined", _release(store, record._replace(fence=stamp), now)
    if record.status == "s" and stamp == record.fence:
        return "declined", _release(store, record, now)
    if record.status == "h" and record.owner == NOBODY:
        return "declined", store._replace(record=record._replace(due=True, sticky=True))
    return {"s": "stale", "e": "settled", "d": "settled"}.get(record.status, "busy"), _mark_sticky(store, record)


def commit(rules: Rules, store: Store, caller: int, fence: int) -> Reply:
    record = store.record
    if record is None:
        if is_dead(store, caller) or (rules.floor_guards_lost and fence <= store.floor):
            return "unknown", store
        lost = Record("r", fence, caller, sticky=True)
        return "accepted", _end(rules, store._replace(floor=max(store.floor, fence)), lost, "completed")
    if record.status in "he" and record.fence == fence:
        return "accepted", store
    if record.status == "r" and (record.fence == fence or not rules.fence_at_commit):
        return "accepted", _end(rules, store, record._replace(fence=fence), "completed")
    return "refused", store


def fail(rules: Rules, store: Store, fence: int, final: bool) -> Reply:
    record = store.record
    if record is None:
        return "unknown", store
    if record.fence == fence and record.status == "r":
        if final:
            return "dead", _end(rules, store, record, "dead")
        return "retry", store._replace(record=record._replace(status="s", owner=NOBODY, due=True))
    if record.fence == fence and record.status == "s":
        return "retry", store
    if record.fence == fence and record.outcome == "dead":
        return "dead", store
    return "refused", store


def hand_over(store: Store, now: int, fence: int) -> Reply:
    record = store.record
    if record is None:
        return "unknown", store
    if record.status == "r" and record.fence == fence:
        return "handed over", _release(store, record, now)
    return "refused", store


def settle(rules: Rules, store: Store, fence: int, confirmed: bool) -> Store:
    record = store.record
    if record is None or record.status not in "he" or record.fence != fence:
        return store
    if record.outcome == "dead":
        return store._replace(record=record._replace(status="d", owner=NOBODY))
    if confirmed and not (record.sticky and rules.sticky):
        return store._replace(record=None)
    return store._replace(record=record._replace(status="e", owner=NOBODY))


def bury(store: Store, now: int, identity: int, max_crashes: int, left: bool = False) -> Store:
    """Move the identity's record to due; the caller puts the identity into the dead set in the same step.

    `left`: it stopped in order, which is no crash.
    """
    record = store.record
    if record is None or record.owner != identity or record.status not in "rh":
        return store
    if record.status == "h" or left:
        return _release(store, record, now)
    crashed = record._replace(crashes=record.crashes + 1)
    if crashed.crashes > max_crashes:
        dead = crashed._replace(status="d", owner=NOBODY, sticky=True, outcome="dead")
        return store._replace(record=dead, ends=store.ends + 1)
    return _release(store, crashed, now)


def reconcile(rules: Rules, store: Store, now: int, caller: int, snapshot: Mark) -> Store:
    """Release what the caller asked for before it began the snapshot and does not have in it."""
    record = store.record
    if record is None or record.owner != caller or is_dead(store, caller):
        return store
    if record.status not in ("rh" if rules.beat_frees_hooks else "r"):
        return store
    if rules.beat_snapshot and record.asked > snapshot:
        return store
    return _release(store, record, now)


def readopt(rules: Rules, store: Store, caller: int, fence: int, asked: Mark) -> Store:
    """Take back a local run that the store has lost."""
    if store.record is not None or is_dead(store, caller):
        return store
    if rules.floor_guards_lost and fence <= store.floor:
        return store
    run = Record("r", fence, caller, sticky=True, asked=asked)
    return store._replace(record=run, floor=max(store.floor, fence))


def mark_published(store: Store, fence: int) -> Store:
    record = store.record
    if record is None or not record.due or record.fence != fence:
        return store
    return store._replace(record=record._replace(due=False))


def set_back(store: Store) -> Store:
    """The server's clock is set back: a time that was noted before, and has not come, is far ahead."""
    record = store.record
    if record is None or record.due or record.owner != NOBODY or record.status not in "sh":
        return store
    return store._replace(record=record._replace(ahead=True))


def set_ahead(rules: Rules, store: Store) -> Store:
    """The server's clock is set ahead: what waits is due, and what was kept until a time is forgotten."""
    record = store.record
    if record is None or record.owner != NOBODY:
        return store
    if record.status in "sh":
        return store._replace(record=record._replace(due=True, ahead=False))
    if record.status == "e" and not rules.watched_retention:
        return store._replace(record=None)
    return store


def _grant(store: Store, now: int, asking: Asking, record: Record) -> Store:
    fence = max(store.floor + 1, now)
    running = record._replace(status="r", fence=fence, owner=asking.caller, outcome="", asked=asking.asked, **NOT_DUE)
    return store._replace(record=running, floor=fence)


def _release(store: Store, record: Record, now: int) -> Store:
    """Make the record due for anybody: waiting again, or its hooks pending without an owner."""
    fence = max(store.floor + 1, now)
    status = "h" if record.status == "h" else "s"
    freed = record._replace(status=status, fence=fence, owner=NOBODY, due=True, sticky=True, ahead=False)
    return store._replace(record=freed, floor=fence)


def _end(rules: Rules, store: Store, record: Record, outcome: str) -> Store:
    status = "h" if rules.hooks_pending else "e"
    ended = record._replace(status=status, due=False, outcome=outcome)
    return store._replace(record=ended, ends=store.ends + 1)


def _mark_sticky(store: Store, record: Record) -> Store:
    return store._replace(record=record._replace(sticky=True))
