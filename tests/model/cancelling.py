"""A running task is cancelled: the store's note, the request to its worker, the interrupt of its thread.

One task, one thread of one worker, which also runs other tasks. Requests get lost, workers die; code may never end by
itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.small import Result, Step, plain, search

WAITING, RUNNING, COMPLETED, CANCELLED, DEAD = "waiting", "running", "completed", "cancelled", "dead"
ENDED = (COMPLETED, CANCELLED, DEAD)
#: What the thread does: nothing, the task's code, its closing, the code of another task.
IDLE, CODE, CLOSING, OTHER = "idle", "code", "closing", "other"


@dataclass(frozen=True, slots=True)
class Rules:
    """One off must give a counterexample."""

    noted: bool = True
    """The store notes in the record of a running task that it is to end. Off: its worker alone is told."""
    failure_ends: bool = True
    """A run that fails after that ends its task. Off: it may become a dead letter."""
    sweep_ends: bool = True
    """A task that was put back after that is ended instead of published."""
    beats_tell: bool = True
    """A worker learns of it from its comparison with the store too. Off: from the request, which may be lost."""
    shut: bool = True
    """A thread is interrupted in the task's code only: whoever leaves it shuts it first."""
    at_once: bool = True
    """Whether the code still runs is looked at, and its thread interrupted, under one lock."""
    cleared: bool = True
    """Whoever shuts it sees to an interrupt that is on its way."""


@dataclass(frozen=True, slots=True)
class World:
    losses: int = 0
    crashes: int = 0
    failures: int = 0
    #: The code ends when it is interrupted, and not before.
    endless: bool = False
    rules: Rules = Rules()


class State(NamedTuple):
    store: str = WAITING
    noted: bool = False
    asked: bool = False  #: somebody was told that it is cancelled
    request: bool = False  #: on its way to the worker
    thread: str = IDLE
    how: str = ""  #: how the code ended
    open: bool = False  #: its thread may be interrupted
    aimed: bool = False  #: somebody saw that, and is about to
    pending: bool = False  #: the interrupt is on its way to the thread
    losses: int = 0
    crashes: int = 0
    failures: int = 0
    broken: str = ""


def explore(world: World) -> Result:
    return search(
        State(),
        lambda state: steps(world, state),
        lambda state: state.broken,
        goal=lambda state: state.store in ENDED or not state.asked,
    )


def steps(world: World, state: State) -> Iterator[Step[State]]:
    yield from plain(steps_of_the_store(world.rules, state))
    yield from plain(steps_of_the_thread(world, state))
    yield from plain(faults(world, state), fault=True)


def faults(world: World, state: State) -> Iterator[State]:
    if state.request and state.losses < world.losses:
        yield state._replace(request=False, losses=state.losses + 1)
    if state.thread != IDLE and state.crashes < world.crashes:
        store = WAITING if state.store == RUNNING else state.store
        yield State(store, state.noted, state.asked, losses=state.losses, crashes=state.crashes + 1)
    if state.store == RUNNING and not state.asked:
        yield state._replace(asked=True, noted=world.rules.noted, request=True)
    if state.thread == CODE and state.failures < world.failures and not world.endless:
        for how in ("failed", "failed for good"):
            yield left(world, state, how)._replace(failures=state.failures + 1)


def steps_of_the_store(rules: Rules, state: State) -> Iterator[State]:
    """The sweep, a claim, and what reaches the worker."""
    if state.store == WAITING and state.noted and rules.sweep_ends:
        yield state._replace(store=CANCELLED)
    elif state.store == WAITING and state.thread == IDLE:
        broken = "a cancelled task ran again" if state.asked else ""
        yield state._replace(store=RUNNING, thread=CODE, open=True, broken=broken)
    if state.request:
        yield aim(rules, state._replace(request=False))
    if rules.beats_tell and state.noted and state.store == RUNNING:
        yield aim(rules, state)
    if state.aimed:
        yield state._replace(aimed=False, pending=True)


def steps_of_the_thread(world: World, state: State) -> Iterator[State]:
    if state.pending:
        yield interrupted(world, state)
    if state.thread == CODE and not world.endless:
        yield left(world, state, "completed")
    if state.thread == CLOSING:
        yield closed(world.rules, state)
    if state.thread == IDLE and state.store != WAITING:
        yield state._replace(thread=OTHER)
    if state.thread == OTHER:
        yield state._replace(thread=IDLE)


def aim(rules: Rules, state: State) -> State:
    """Interrupt the thread, if the code still runs."""
    if not state.open:
        return state
    return state._replace(pending=True) if rules.at_once else state._replace(aimed=True)


def interrupted(world: World, state: State) -> State:
    state = state._replace(pending=False)
    if state.thread == CODE:
        return left(world, state, "interrupted")
    # While it closes nothing, the step is repeated; idle, the thread waits on.
    return state._replace(broken="another task was interrupted") if state.thread == OTHER else state


def left(world: World, state: State, how: str) -> State:
    """The code is over, however."""
    rules = world.rules
    pending = state.pending and not (rules.shut and rules.cleared)
    return state._replace(thread=CLOSING, how=how, open=state.open and not rules.shut, pending=pending)


def closed(rules: Rules, state: State) -> State:
    if state.how == "completed":
        store = COMPLETED
    elif state.how == "interrupted" or (state.noted and rules.failure_ends):
        store = CANCELLED
    else:
        store = DEAD if state.how == "failed for good" else WAITING
    broken = "a cancelled task became a dead letter" if store == DEAD and state.noted else ""
    return state._replace(store=store, thread=IDLE, how="", broken=broken)
