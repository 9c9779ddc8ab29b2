"""One idempotency key and the tasks that have it: who owns it, who waits, what an end, a death or a loss does to both.

The life cycle itself is the other model's concern: here a task is queued, waits for the key, runs, has lost its worker,
or has ended. `RELEASED` waiters at most are let go at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.small import Result, Step, one_more, search

QUEUED, WAITING, RUNNING, ORPHAN = "queued", "waiting", "running", "orphan"
COMPLETED, DUPLICATE, ENDED = "completed", "duplicate", "ended"
OVER = (COMPLETED, DUPLICATE, ENDED)

RELEASED = 1


@dataclass(frozen=True, slots=True)
class Rules:
    """What keeps a key safe, piece by piece. One off must give a counterexample."""

    one_step: bool = True
    """The claim looks at the key and takes it in one step."""
    fenced: bool = True
    """A run that was overtaken can neither commit nor release."""
    from_death: bool = True
    """The in-flight time counts from the death of the owner's worker; one that lives keeps the key while it runs."""
    claim_stops_it: bool = True
    """The owner's next claim ends the in-flight time."""
    owner_asks_too: bool = True
    """A task that owned the key once is asked again at each of its claims: another one may own it by now."""
    passed_on: bool = True
    """When the owner ends without completing, one waiter goes on."""
    as_owner: bool = True
    """That waiter owns the key from this moment, so that its own end is noticed too."""
    noted: bool = True
    """That there are more waiters to release is noted where sweepers look."""
    in_flight_watched: bool = True
    """Sweepers look at a dead owner's key when its in-flight time is over."""
    looked_at_again: bool = True
    """Each waiter is looked at by itself, once in a while."""
    owner_is_there: bool = True
    """An owner counts only while its record says that it is on its way; the entry alone proves nothing."""


@dataclass(frozen=True, slots=True)
class World:
    """How many tasks share the key, and how often each fault may happen."""

    tasks: int = 3
    places: int = 2  #: in the list of waiters
    crashes: int = 0
    cancels: int = 0
    parked: int = 0  #: orphans that nobody can run any more
    forgotten: int = 0  #: owners whose end the key never learned of
    expiries: int = 0
    rules: Rules = Rules()


class State(NamedTuple):
    tasks: tuple[str, ...]
    owner: int = -1  #: -1: nobody
    completed: bool = False
    dying: bool = False  #: the in-flight time runs
    noted: bool = False
    waiters: tuple[int, ...] = ()
    zombies: frozenset[int] = frozenset()  #: tasks of which a run goes on that was taken for dead
    looked: frozenset[int] = frozenset()  #: tasks that saw the key free and have not taken it (without `one_step`)
    unclaimable: frozenset[int] = frozenset()
    completions: int = 0  #: runs that completed since the key was last free
    faults: tuple[int, ...] = (0, 0, 0, 0, 0)


def explore(world: World) -> Result:
    return search(
        State((QUEUED,) * world.tasks),
        lambda state: steps(world, state),
        lambda state: "two runs completed" if state.completions > 1 else "",
        goal=lambda state: all(_over(state, task) for task in range(world.tasks)),
        otherwise="stranded",
    )


def _over(state: State, task: int) -> bool:
    return state.tasks[task] in OVER or task in state.unclaimable


def steps(world: World, state: State) -> Iterator[Step[State]]:
    for task, place in enumerate(state.tasks):
        if place == QUEUED and task not in state.unclaimable:
            yield Step(f"{task} claims", claim(world, state, task))
        elif place == RUNNING:
            yield Step(f"{task} completes", complete(state, task))
            yield Step(f"{task} fails, and will be retried", put(state, task, QUEUED))
            yield Step(f"{task} fails for good", leave(world, put(state, task, ENDED), task))
        elif place == ORPHAN:
            buried = put(state, task, QUEUED)
            yield Step(f"{task} is buried", buried._replace(dying=True) if state.owner == task else buried)
        elif place == WAITING and world.rules.looked_at_again and not (task in state.waiters and _held(world, state)):
            # One that has its place while somebody owns the key need not look: it would find the same.
            yield Step(f"{task} is looked at again", wake(world, state, task))
        if task in state.zombies:
            after = state._replace(zombies=state.zombies - {task})
            yield Step(f"{task}'s old run commits", after if world.rules.fenced else complete(after, task))
    if state.noted:
        yield Step("waiters are released", release(world, state))
    may_be_over = state.dying or (not world.rules.from_death and state.owner >= 0 and not state.completed)
    if may_be_over and state.owner >= 0:
        yield Step("the in-flight time is over", lapse(world, state))
    yield from faults(world, state)


def faults(world: World, state: State) -> Iterator[Step[State]]:
    limits = (world.crashes, world.cancels, world.parked, world.forgotten, world.expiries)
    may = [used < limit for used, limit in zip(state.faults, limits, strict=True)]

    def fault(kind: int, label: str, after: State) -> Step[State]:
        return Step(label, after._replace(faults=one_more(after.faults, kind)), True)

    for task, place in enumerate(state.tasks):
        if place == RUNNING and may[0]:
            orphan = put(state, task, ORPHAN)
            yield fault(0, f"{task}'s worker dies", orphan)
            yield fault(0, f"{task}'s worker is taken for dead", orphan._replace(zombies=orphan.zombies | {task}))
        if place in (QUEUED, WAITING) and may[1]:
            yield fault(1, f"{task} is cancelled", leave(world, put(state, task, ENDED), task))
        if place == QUEUED and state.dying and state.owner == task and may[2]:
            yield fault(2, f"nobody can run {task}", state._replace(unclaimable=state.unclaimable | {task}))
        if place == QUEUED and state.owner == task and may[3]:
            yield fault(3, f"{task} is forgotten", put(state, task, ENDED))
    if state.completed and may[4]:
        yield fault(4, "the key expires", state._replace(owner=-1, completed=False, completions=0))


def put(state: State, task: int, place: str) -> State:
    return state._replace(tasks=(*state.tasks[:task], place, *state.tasks[task + 1 :]))


def _held(world: World, state: State) -> bool:
    """Whether somebody owns the key and is on the way."""
    if state.owner < 0 or state.completed:
        return False
    return not world.rules.owner_is_there or state.tasks[state.owner] not in OVER


def claim(world: World, state: State, task: int) -> State:
    rules = world.rules
    if task in state.looked:
        return _take(world, state._replace(looked=state.looked - {task}), task)
    if state.owner == task and not state.completed:
        return _take(world, state, task)
    if not rules.owner_asks_too and task in state.zombies:  # It ran before; here the one thing that remembers that.
        return put(state, task, RUNNING)
    if state.completed:
        return put(state, task, DUPLICATE)
    if _held(world, state):
        listed = task in state.waiters or len(state.waiters) >= world.places
        return put(state if listed else state._replace(waiters=(*state.waiters, task)), task, WAITING)
    if not rules.one_step:
        return state._replace(looked=state.looked | {task})
    return _take(world, state, task)


def _take(world: World, state: State, task: int) -> State:
    dying = state.dying and not world.rules.claim_stops_it
    return put(state, task, RUNNING)._replace(owner=task, dying=dying)


def complete(state: State, task: int) -> State:
    after = put(state, task, COMPLETED)._replace(completions=state.completions + 1)
    return after._replace(owner=task, completed=True, dying=False, noted=bool(state.waiters))


def leave(world: World, state: State, task: int) -> State:
    """The task has ended without completing: if it owned the key, a waiter may have it."""
    if state.owner != task or state.completed:
        return state
    return _pass_on(world, state) if world.rules.passed_on else state._replace(owner=-1, dying=False)


def _pass_on(world: World, state: State) -> State:
    for place, waiter in enumerate(state.waiters):
        if state.tasks[waiter] == WAITING:
            owner = waiter if world.rules.as_owner else -1
            return put(state, waiter, QUEUED)._replace(owner=owner, dying=False, waiters=state.waiters[place + 1 :])
    return state._replace(owner=-1, dying=False, waiters=())


def lapse(world: World, state: State) -> State:
    """The dead owner may not come back: the sweeper passes its key on, or whoever claims next takes it."""
    return _pass_on(world, state) if world.rules.in_flight_watched else state._replace(owner=-1, dying=False)


def release(world: World, state: State) -> State:
    gone, left = state.waiters[:RELEASED], state.waiters[RELEASED:]
    for waiter in gone:
        if state.tasks[waiter] == WAITING:
            state = put(state, waiter, QUEUED)  # It claims and finds the key completed, or free, or held again.
    return state._replace(waiters=left, noted=bool(left) and world.rules.noted)


def wake(world: World, state: State, task: int) -> State:
    waiters = tuple(waiter for waiter in state.waiters if waiter != task)
    if not _held(world, state):
        return put(state, task, QUEUED)._replace(waiters=waiters)
    return state if len(waiters) >= world.places else state._replace(waiters=(*waiters, task))
