"""One purge and one task: where its copies are when the mark is set, and whose clock says how old it is.

The life cycle itself is the other model's concern: here a task waits in a queue, in a worker's hands or in the store,
runs, or has ended. One task is enough, since a purge judges each by itself: it is `old` when it was enqueued before the
purge began, `new` when after that ended, and of one in between nothing is promised. Time is the server's, in steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.small import Result, Step, one_more, search

UNBORN, OLD, MEANWHILE, NEW = "unborn", "old", "meanwhile", "new"
#: Of the record: there is none yet · in the store's custody (delayed, retrying, put back) · …
NONE, WAITS, RUNS, DEAD, PURGED, DONE = "none", "waits", "runs", "dead", "purged", "done"
OVER = (DEAD, PURGED, DONE)

#: By how much a corrected stamp may be late: as long as the answer took that told the server's time.
LATE = 1
#: The mark is so far ahead of the beginning of its purge.
AHEAD = 2
#: How far the clock of a producer is off that does not correct it.
SKEW = 3
LAST = 5


@dataclass(frozen=True, slots=True)
class Rules:
    """What makes a purge safe, piece by piece. One off must give a counterexample."""

    mark_checked: bool = True
    """Each claim of a copy asks the mark: what was in a worker's hands, or came back, was in no queue to be drained."""
    corrected: bool = True
    """A stamp says when the message was enqueued by the server's clock, as far as its producer knows that."""
    never_behind: bool = True
    """A producer counts from before it asked for the server's time: its stamp is late rather than early."""
    ahead: bool = True
    """The mark is ahead of the purge's beginning, by more than stamps are late."""
    waits: bool = True
    """The purge ends after the time of its mark."""
    exempt: bool = True
    """A dead letter that is released is exempt from the marks there are."""
    from_its_writing: bool = True
    """Which marks there are is a matter of when they were written: their time may be ahead of that."""
    store_first: bool = True
    """A drained copy is removed after the store has ended its task."""
    once: bool = True
    """The store ends a task by its id, once."""
    runs_on: bool = True
    """What runs is left alone."""
    newest: bool = True
    """An older mark does not replace a newer one."""
    outlives: bool = True
    """The mark is kept for longer than a copy may wait."""
    void_when_set_back: bool = True
    """A mark that was written later than now is void: the server's clock was set back, and nothing can be told by it.
    Whoever sweeps notices, long before the clock is where it was."""


@dataclass(frozen=True, slots=True)
class World:
    """How often each fault may happen."""

    deaths: int = 1  #: of the worker that has a copy or runs the task; a stopped one simply takes no step
    kills: int = 1  #: of the purge
    releases: int = 1
    older: int = 1  #: purges of older tasks only, afterwards
    expiries: int = 1
    set_back: int = 1
    rules: Rules = Rules()


class State(NamedTuple):
    time: int = 0
    age: str = UNBORN
    stamp: int = 0
    record: str = NONE
    queued: int = 0
    held: int = 0  #: in a worker's hands, not claimed
    drained: str = ""  #: a copy that the purge took: `taken`, then `judged`
    released: int = -1  #: when; the record notes it, unless a rule is off
    ends: int = 0
    began: int = -1  #: when the purge began; -1: it did not, or was killed
    mark: int = -1
    written: int = -1
    ended: bool = False
    was_set_back: bool = False
    broken: str = ""
    faults: tuple[int, ...] = (0, 0, 0, 0, 0, 0)


def explore(world: World) -> Result:
    return search(
        State(),
        lambda state: steps(world, state),
        lambda state: state.broken,
        goal=lambda state: state.age == UNBORN or state.record in OVER,
        otherwise="lost",
    )


def steps(world: World, state: State) -> Iterator[Step[State]]:
    if state.time < LAST:
        yield Step("a moment passes", state._replace(time=state.time + 1))
    if state.age == UNBORN:
        yield from push(world, state)
    if state.queued and not state.held:
        yield Step("a worker fetches a copy", state._replace(queued=state.queued - 1, held=1))
    if state.held:
        yield Step("a worker claims", claim(world, state))
    if state.record == WAITS and not (state.queued or state.held or state.drained):
        yield Step("the store publishes", state._replace(queued=1))
    if state.record == RUNS:
        yield Step("the run completes", _end(state, DONE))
        yield Step("the run fails, and will be retried", state._replace(record=WAITS))
        yield Step("the run fails for good", _end(state, DEAD))
    yield from purge(world, state)
    yield from faults(world, state)


def push(world: World, state: State) -> Iterator[Step[State]]:
    rules = world.rules
    age = OLD if state.began < 0 and not state.ended else NEW if state.ended else MEANWHILE
    errors = (range(-LATE if not rules.never_behind else 0, LATE + 1)) if rules.corrected else (-SKEW, SKEW)
    for error in errors:
        pushed = state._replace(age=age, stamp=state.time + error)
        yield Step(f"it is enqueued ({age}), stamped {pushed.stamp}", pushed._replace(queued=1))
        yield Step(f"it is enqueued with a delay ({age}), stamped {pushed.stamp}", pushed._replace(record=WAITS))


def doomed(world: World, state: State) -> bool:
    """Whether the mark concerns the task."""
    if state.mark < 0:
        return False
    exempt = state.released if world.rules.exempt else -1
    if exempt >= state.written and world.rules.from_its_writing:
        return False
    return max(state.stamp, exempt) < state.mark


def claim(world: World, state: State) -> State:
    after = state._replace(held=state.held - 1)
    if state.record not in (NONE, WAITS):
        return after
    if world.rules.mark_checked and doomed(world, state):
        return _discard(after)
    if state.age == OLD and state.ended and state.released < 0 and not state.was_set_back:
        return after._replace(broken="an old task ran")
    return after._replace(record=RUNS)


def _end(state: State, record: str) -> State:
    return state._replace(record=record, ends=state.ends + 1, broken="two ends" if state.ends else "")


def _discard(state: State) -> State:
    if state.age == NEW:
        return state._replace(broken="a new task was purged")
    if state.released >= state.written:
        return state._replace(broken="a released task was purged")
    return _end(state, PURGED)


def judge(world: World, state: State) -> State:
    """The store decides about a task, because of a copy or a record that the purge found."""
    may_end = state.record in (NONE, WAITS) or (state.record == RUNS and not world.rules.runs_on)
    if state.record == PURGED and not world.rules.once:
        return _discard(state)
    if not may_end or not doomed(world, state):
        return state
    if state.record == RUNS:
        return state._replace(broken="a running task was purged")
    return _discard(state)


def purge(world: World, state: State) -> Iterator[Step[State]]:
    rules = world.rules
    if state.began < 0 and not state.ended:
        mark = state.time + (AHEAD if rules.ahead else 0)
        begun = state._replace(began=state.time, mark=max(mark, state.mark), written=state.time)
        yield Step(f"a purge begins: the mark is {begun.mark}", begun)
    if state.began >= 0 and not state.ended:
        if state.queued and not state.drained:
            yield Step("the purge takes a copy", state._replace(queued=state.queued - 1, drained="taken"))
        if state.drained:
            yield from drain(world, state)
        if state.record in (WAITS, RUNS):
            yield Step("the purge finds the record", judge(world, state))
        if not state.drained and (state.time >= state.mark or not rules.waits):
            yield Step("the purge ends", state._replace(ended=True))


def drain(world: World, state: State) -> Iterator[Step[State]]:
    """One drained copy: judged by the store, then removed or put back; without the rule the other way round."""
    ours = state.record in (NONE, WAITS) and doomed(world, state)
    if not world.rules.store_first and ours:
        if state.drained == "taken":
            yield Step("the copy is removed", state._replace(drained="removed"))
        elif state.drained == "removed":
            yield Step("the store hears of it", judge(world, state)._replace(drained=""))
    elif state.drained == "taken":
        judged = judge(world, state)
        removed = judged.record in OVER
        yield Step("the store judges the copy", judged._replace(drained="judged" if removed else "kept"))
    elif state.drained == "kept":
        yield Step("the copy is put back", state._replace(drained="", queued=state.queued + 1))
    else:
        yield Step("the copy is removed", state._replace(drained=""))


def faults(world: World, state: State) -> Iterator[Step[State]]:
    limits = (world.deaths, world.kills, world.releases, world.older, world.expiries, world.set_back)
    may = [used < limit for used, limit in zip(state.faults, limits, strict=True)]

    def fault(kind: int, label: str, after: State) -> Step[State]:
        return Step(label, after._replace(faults=one_more(after.faults, kind)), True)

    if state.held and may[0]:
        yield fault(0, "the worker dies", state._replace(held=0, queued=state.queued + state.held))
    if state.record == RUNS and may[0]:
        yield fault(0, "the worker dies", state._replace(record=WAITS))
    if state.began >= 0 and not state.ended and may[1]:
        back = state.queued + (state.drained in ("taken", "judged", "kept"))
        yield fault(1, "the purge is killed", state._replace(began=-1, drained="", queued=back))
    if state.record == DEAD and may[2]:
        released = state._replace(record=WAITS, ends=state.ends - 1, released=state.time)
        yield fault(2, "it is released", released)
    if state.ended and may[3]:
        mark = state.mark if world.rules.newest else 0
        yield fault(3, "another purge sets an older mark", state._replace(mark=mark))
    if state.mark >= 0 and may[4] and (not world.rules.outlives or (state.ended and state.record in OVER)):
        yield fault(4, "the mark expires", state._replace(mark=-1, written=-1))
    if state.ended and state.written > 0 and may[5]:
        early = state._replace(time=0, was_set_back=True)
        noticed = early._replace(mark=-1, written=-1) if world.rules.void_when_set_back else early
        yield fault(5, "the server's clock is set back", noticed)
