"""When identical failures end a task: one task whose code fails, in workers that die, with replies that get lost.

The life cycle itself is the other model's concern: here a task waits, runs, or is dead, and then owes its hooks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.small import Result, plain, search

#: So many identical failures in a row end a task.
LIMIT = 3
#: An uncounted failure, as of a rate limit.
UNCOUNTED = "-"

WAITING, RUNNING, DEAD = "waiting", "running", "dead"


@dataclass(frozen=True, slots=True)
class Rules:
    """What makes the row right. One off must give a counterexample."""

    repeated_is_counted_once: bool = True
    """A repeated call gets its first verdict. Off: it counts again, and one failure may be three."""
    row_in_record: bool = True
    """The row is in the task's record. Off: in the worker, and another one begins anew."""
    verdict_is_obeyed: bool = True
    """A run that asked for a retry and is told `dead` runs the hooks. Off: it believes in its retry."""
    uncounted_changes_nothing: bool = True
    """A failure that is no attempt leaves the row alone. Off: it breaks the row."""
    release_begins_anew: bool = True
    """A released task has no row. Off: its next failure ends it, though it may be another attempt's first."""


@dataclass(frozen=True, slots=True)
class World:
    prints: str = "ab"  #: the fingerprints that its failures may have
    runs: int = 6  #: how many runs it gets
    faults: int = 2  #: workers that are killed, replies that are lost, releases
    rules: Rules = Rules()


class Worker(NamedTuple):
    """Who has the task: in which phase, and what it remembers if the row is its own."""

    phase: str = ""  #: '' nothing · running · asks (its call's reply was lost) · hooks
    failure: str = ""  #: what it calls about
    row: str = ""


class State(NamedTuple):
    record: str = WAITING
    row: str = ""  #: the record's row: identical failures, the last one last
    hooks_owed: bool = False
    worker: Worker = Worker()
    runs: int = 0
    faults: int = 0
    #: What really happened since the last release: counted failures, each once. Nobody in the model reads it.
    truth: str = ""
    stopped: bool = False


def explore(world: World) -> Result:
    return search(
        State(),
        lambda state: plain(steps(world, state)),
        violation,
        goal=lambda state: not state.hooks_owed,
        otherwise="hooks never run",
    )


def violation(state: State) -> str:
    last = state.truth[-LIMIT:]
    identical = len(last) == LIMIT and len(set(last)) == 1
    if state.stopped and not identical:
        return f"stopped after {state.truth!r}: {state}"
    if identical and state.record != DEAD:
        return f"goes on after {state.truth!r}: {state}"
    return ""


def steps(world: World, state: State) -> Iterator[State]:
    worker = state.worker
    if worker.phase == "":
        yield from _begin(world, state)
    elif worker.phase == "running":
        for failure in (*world.prints, UNCOUNTED):
            yield from _call(world, state, failure, repeated=False)
    elif worker.phase == "asks":
        yield from _call(world, state, worker.failure, repeated=True)
    elif worker.phase == "hooks":
        yield state._replace(hooks_owed=False, worker=Worker(row=worker.row))
    if worker.phase and state.faults < world.faults:
        record = WAITING if state.record == RUNNING else state.record
        yield state._replace(record=record, worker=Worker(), faults=state.faults + 1)  # SIGKILL, and its burial


def _begin(world: World, state: State) -> Iterator[State]:
    """A worker takes the task; of a dead one whose owner is gone it runs the hooks."""
    row = state.worker.row
    if state.record == WAITING and state.runs < world.runs:
        yield state._replace(record=RUNNING, worker=Worker("running", row=row), runs=state.runs + 1)
    elif state.record == DEAD and state.hooks_owed:
        if world.rules.verdict_is_obeyed:
            yield state._replace(worker=Worker("hooks"))
    elif state.record == DEAD and state.faults < world.faults:
        released = state._replace(record=WAITING, truth="", stopped=False, faults=state.faults + 1)
        yield released._replace(row="") if world.rules.release_begins_anew else released


def _call(world: World, state: State, failure: str, *, repeated: bool) -> Iterator[State]:
    """The run tells the store that it failed, and asks for a retry; the reply comes, or is lost."""
    verdict, after = _decide(world, state, failure, repeated=repeated)
    row = after.worker.row
    hooks = verdict == DEAD and world.rules.verdict_is_obeyed
    yield after._replace(worker=Worker("hooks" if hooks else "", row=row))
    if state.faults < world.faults:
        yield after._replace(worker=Worker("asks", failure, row), faults=state.faults + 1)


def _decide(world: World, state: State, failure: str, *, repeated: bool) -> tuple[str, State]:
    """What the script of a failure decides."""
    rules = world.rules
    if repeated and state.record != RUNNING and (rules.repeated_is_counted_once or state.record == DEAD):
        return state.record, state
    counts = failure != UNCOUNTED
    truth = state.truth + failure if counts and state.record == RUNNING else state.truth
    row = state.row if rules.row_in_record else state.worker.row
    if counts or not rules.uncounted_changes_nothing:
        row = row + failure if row[-1:] in ("", failure) else failure
    stops = counts and len(row) >= LIMIT
    after = state._replace(record=DEAD if stops else WAITING, truth=truth[-LIMIT:], stopped=stops, hooks_owed=stops)
    after = after._replace(row=row[-LIMIT:]) if rules.row_in_record else after
    return after.record, after._replace(worker=after.worker._replace(row=row[-LIMIT:]))
