"""Who gets a task that is newer than some workers' code: one task, workers of two releases that come and go.

The life cycle itself is the other model's concern: here a task is a copy in the queue, due, parked, runs, or has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.small import Result, Step, plain, search

COPY, DUE, PARKED, RUNNING, COMPLETED, DEAD = "a copy", "due", "parked", "running", "completed", "dead"
OLD, NEW = 1, 2

#: For how many ticks a task is held while nobody knows its version.
GRACE = 2


@dataclass(frozen=True, slots=True)
class Rules:
    """What happens to a task that is too new, piece by piece. One off must give a counterexample."""

    decline: bool = True
    """A worker whose code is older than the payload does not run it."""
    before_claim: bool = True
    """It finds out before it claims, so that nothing is counted. Off: it claims, and fails."""
    publish_to_knowing: bool = True
    """A copy is published only while some worker that the sweeper saw knows the version."""
    look_again: bool = True
    """Before a task is parked, or given up, the sweeper looks at the fleet afresh."""
    open_lots: bool = True
    """What is parked is due when a worker comes that knows it. Off: when its time has come."""
    grace_begins_anew: bool = True
    """A task that was let out, or published, since is held for the whole time again."""


@dataclass(frozen=True, slots=True)
class World:
    """The releases at the beginning, one for each worker, and how often a worker may start, and be killed."""

    workers: tuple[int, ...]
    starts: int = 2
    kills: int = 2
    rules: Rules = Rules()


class State(NamedTuple):
    workers: tuple[int, ...]
    starts: int
    kills: int
    place: str = COPY
    runner: int = 0  #: the release that runs it
    waited: int = 0  #: ticks since it was parked for the first time without being published in between
    seen: int = OLD  #: the newest release that the sweeper saw at its last look; 0: nobody
    lonely: int = 0  #: ticks since some worker knew it
    wasted: bool = False  #: a copy was published though the sweeper saw nobody for it
    counted: bool = False

    @property
    def newest(self) -> int:
        return max(self.workers, default=0)

    @property
    def over(self) -> bool:
        return self.place in (COMPLETED, DEAD)


def explore(world: World) -> Result:
    """Search it. The goal must be reached without the help of time, wherever a worker knows the task."""
    return search(
        State(world.workers, world.starts, world.kills, seen=max(world.workers, default=0)),
        lambda state: steps(world, state),
        violation,
        goal=lambda state: state.over or state.newest != NEW,
        otherwise="kept waiting",
    )


def steps(world: World, state: State) -> Iterator[Step[State]]:
    if not state.over:
        yield from plain(prompt_steps(world, state))
        yield from plain(slow_steps(world, state), fault=True)


def violation(state: State) -> str:
    if state.place == RUNNING and state.runner == OLD:
        return f"ran with the wrong shape: {state}"
    if state.counted:
        return f"a failure was counted: {state}"
    if state.place == DEAD and (state.newest == NEW or state.lonely < GRACE):
        return f"dead-lettered for being early: {state}"
    return f"published for nobody: {state}" if state.wasted else ""


def prompt_steps(world: World, state: State) -> Iterator[State]:
    """Yield what follows at once: a worker takes the copy or ends its run, the sweeper looks, and publishes."""
    if state.place == COPY:
        yield from (_taken(world, state, release) for release in sorted(set(state.workers)))
    elif state.place == RUNNING:
        yield state._replace(place=COMPLETED)
    elif state.place == DUE:
        yield _swept(world, state)
    yield _looked(world, state)


def _taken(world: World, state: State, release: int) -> State:
    rules = world.rules
    if release == NEW or not rules.decline:
        return state._replace(place=RUNNING, runner=release)
    return state._replace(place=DUE, counted=not rules.before_claim)


def _looked(world: World, state: State) -> State:
    state = state._replace(seen=state.newest)
    opens = world.rules.open_lots and state.place == PARKED and state.seen == NEW
    return state._replace(place=DUE, waited=_anew(world, state)) if opens else state


def _anew(world: World, state: State) -> int:
    return 0 if world.rules.grace_begins_anew else state.waited


def _swept(world: World, state: State) -> State:
    rules = world.rules
    if state.seen != NEW and rules.look_again:
        state = state._replace(seen=state.newest)
    if state.seen == NEW or not rules.publish_to_knowing:
        return state._replace(place=COPY, wasted=state.seen != NEW, waited=_anew(world, state))
    return state._replace(place=DEAD if state.waited >= GRACE else PARKED)


def slow_steps(world: World, state: State) -> Iterator[State]:
    """Yield what may happen meanwhile: time passes, workers come and go."""
    looked = _looked(world, state)
    if looked.place != DUE:  # What is due is swept before time passes.
        yield _tick(looked)
    if state.starts:
        for release in (OLD, NEW):
            yield state._replace(workers=tuple(sorted((*state.workers, release))), starts=state.starts - 1)
    for place in range(len(state.workers) if state.kills else 0):
        killed = state._replace(workers=state.workers[:place] + state.workers[place + 1 :], kills=state.kills - 1)
        yield killed._replace(place=DUE) if state.place == RUNNING and state.workers[place] == NEW else killed


def _tick(state: State) -> State:
    """Let time pass, in which the sweeper has looked at least once: a parked task whose grace is over is due."""
    lonely = 0 if state.newest == NEW else min(GRACE, state.lonely + 1)
    if state.place != PARKED:
        return state._replace(lonely=lonely)
    waited = min(GRACE, state.waited + 1)
    return state._replace(lonely=lonely, waited=waited, place=DUE if waited >= GRACE else PARKED)
