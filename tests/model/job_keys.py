"""One job key and the tasks pushed under it: the newest wins, wherever the older ones are.

A push is two steps: custody (one script, which also ends the older task) and publication. The life cycle itself is the
other model's concern: here a task waits, runs, is dead or has ended. Ranks and fences are times of one clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.small import Result, Step, one_more, search

#: How far a producer has come.
IDLE, LOOKED, ASKED, HELD, RETURNED, DIED = "idle", "looked", "asked", "held", "returned", "died"
#: States of a record; FRESH waits for its first run, so its first-hand copy may have it.
NONE, FRESH, WAITING, RUNNING, DEAD = "none", "fresh", "waiting", "running", "dead"
COMPLETED, SUPERSEDED, GONE = "completed", "superseded", "gone"
UNENDED = (FRESH, WAITING, RUNNING)
OVER = (COMPLETED, SUPERSEDED)


@dataclass(frozen=True, slots=True)
class Rules:
    """What lets the newest win, piece by piece. One off must give a counterexample."""

    custody_first: bool = True
    """The store has the task before anybody can see its message."""
    one_step: bool = True
    """Whoever takes the key ends the older task in the same step."""
    fences_out: bool = True
    """An older task that runs loses its fence: it can neither complete nor fail."""
    due: bool = True
    """A task in custody is due: whatever becomes of its producer, a sweeper publishes it."""
    joins: bool = True
    """A copy that finds no record asks for the key before it runs."""
    ranked: bool = True
    """It asks with the rank that its push got: the newer one has the key."""
    outlives: bool = True
    """The key's entry outlives its task, for as long as copies of older ones may come."""
    release_asks: bool = True
    """Only the newest task's dead letter may be released."""
    adoption_asks: bool = True
    """A run that the store lost asks for the key before it is restored."""
    repeatable: bool = True
    """A repeated push of one task changes nothing."""


@dataclass(frozen=True, slots=True)
class World:
    """How many tasks are pushed, and how often each fault may happen."""

    tasks: int = 2
    crashes: int = 0  #: of a worker
    deaths: int = 0  #: of a producer, between its steps
    replies: int = 0  #: lost ones of a custody
    failures: int = 0  #: that lead to a retry
    letters: int = 0  #: failures for good
    releases: int = 0
    imports: int = 0  #: of a dead letter that was exported
    retentions: int = 0  #: an ended task is forgotten
    rollbacks: int = 0
    rules: Rules = Rules()


KINDS = ("crashes", "deaths", "replies", "failures", "letters", "releases", "imports", "retentions", "rollbacks")


class Record(NamedTuple):
    state: str = NONE
    fence: int = 0


class Store(NamedTuple):
    records: tuple[Record, ...]
    newest: int = -1  #: -1: no entry
    rank: int = 0


class Copy(NamedTuple):
    task: int
    fence: int  #: 0: first-hand
    rank: int


class Run(NamedTuple):
    task: int
    fence: int
    rank: int


class State(NamedTuple):
    store: Store
    producers: tuple[str, ...]
    ranks: tuple[int, ...]  #: as their custodies were answered
    order: tuple[int, ...] = ()  #: tasks in the order of their custodies, as they truly were
    copies: frozenset[Copy] = frozenset()
    runs: frozenset[Run] = frozenset()
    begun: frozenset[int] = frozenset()
    completed: tuple[int, ...] = ()
    clock: int = 0
    saved: Store | None = None  #: what a rollback leaves
    rolled_back: bool = False
    faults: tuple[int, ...] = (0,) * len(KINDS)
    broken: str = ""


def explore(world: World) -> Result:
    return search(
        State(Store((Record(),) * world.tasks), (IDLE,) * world.tasks, (0,) * world.tasks),
        lambda state: steps(world, state),
        lambda state: state.broken or _torn(state),
        goal=_is_over,
        otherwise="the newest is lost",
    )


def _is_over(state: State) -> bool:
    """Whether every push is over, and the newest that returned, or one after it, ended by itself."""
    if any(producer not in (RETURNED, DIED) for producer in state.producers):
        return False
    last = max((i for i, task in enumerate(state.order) if state.producers[task] == RETURNED), default=None)
    return last is None or any(
        task in state.completed or state.store.records[task].state == DEAD for task in state.order[last:]
    )


def _torn(state: State) -> str:
    unended = sum(record.state in UNENDED for record in state.store.records)
    return "two unended tasks" if unended > 1 else ""


def _newer(state: State, task: int) -> list[int]:
    """Return the tasks that were pushed after this one; after a rollback, those of which the store has heard since."""
    if task not in state.order:
        return []
    after = state.order[state.order.index(task) + 1 :]
    return [other for other in after if not state.rolled_back or other in state.begun]


def steps(world: World, state: State) -> Iterator[Step[State]]:
    for task, producer in enumerate(state.producers):
        if producer not in (RETURNED, DIED):
            yield from push(world, state, task)
    for task, record in enumerate(state.store.records):
        due = record.state == WAITING or (record.state == FRESH and world.rules.due)
        copy = Copy(task, record.fence, record.fence)
        if due and copy not in state.copies:
            yield Step(f"a sweeper publishes {task}", state._replace(copies=state.copies | {copy}))
        if record.state == RUNNING and not any(run[:2] == (task, record.fence) for run in state.runs):
            back = put(state, task, Record(WAITING, state.clock + 1))._replace(clock=state.clock + 1)
            yield Step(f"{task}'s dead owner is buried", back)
    for copy in sorted(state.copies):
        taken = state._replace(copies=state.copies - {copy})
        yield Step(f"a copy of {copy.task} ({copy.fence}) is claimed", claim(world, taken, copy))
    for run in sorted(state.runs):
        yield from ends(world, state, run)
    store = state.store
    if _may_forget(world, state):
        yield Step("the entry is forgotten", state._replace(store=store._replace(newest=-1, rank=0)))
    yield from faults(world, state)


def _may_forget(world: World, state: State) -> bool:
    """Whether the key's entry may go: its task has ended, and nothing of an older one comes any more."""
    store = state.store
    if store.newest < 0 or store.records[store.newest].state not in (*OVER, NONE, GONE):
        return False
    return not (world.rules.outlives and _others_may_come(state))


def _others_may_come(state: State) -> bool:
    """Whether copies or runs of older tasks are around."""
    newest = state.store.newest
    return any(_may_come(state, task) for task in range(len(state.producers)) if task != newest)


def _may_come(state: State, task: int) -> bool:
    """Whether a task has a copy or a run, or its producer is about to publish one."""
    there = {copy.task for copy in state.copies} | {run.task for run in state.runs}
    return state.producers[task] in (ASKED, HELD) or task in there


# -- pushing ------------------------------------------------------------------------------------------------------


def push(world: World, state: State, task: int) -> Iterator[Step[State]]:
    rules, producer = world.rules, state.producers[task]
    if not rules.custody_first:
        yield Step(f"{task} is published", publish(state._replace(order=(*state.order, task)), task, state.clock + 1))
    elif producer == HELD:
        yield Step(f"{task} is published", publish(state, task, state.ranks[task]))
    elif not rules.one_step and producer == IDLE:
        yield Step(f"{task} looks for an older one", _at(end_older(world, state, task), task, LOOKED))
    else:
        after = custody(world, state, task)
        yield Step(f"{task} is in custody", _at(after, task, HELD))
        if producer == IDLE and _may(world, state, "replies"):
            yield _fault(state, "replies", f"{task} is in custody, unheard", _at(after, task, ASKED))
    if producer != IDLE and _may(world, state, "deaths"):
        yield _fault(state, "deaths", f"{task}'s producer dies", _at(state, task, DIED))


def publish(state: State, task: int, rank: int) -> State:
    published = state._replace(copies=state.copies | {Copy(task, 0, rank)}, clock=max(state.clock, rank))
    return _at(published, task, RETURNED)


def custody(world: World, state: State, task: int) -> State:
    record = state.store.records[task]
    if record.state != NONE and world.rules.repeatable:
        return state
    if world.rules.one_step:
        state = end_older(world, state, task)
    taken = take(state._replace(order=(*(t for t in state.order if t != task), task)), task, FRESH)
    return taken._replace(ranks=(*state.ranks[:task], taken.store.rank, *state.ranks[task + 1 :]))


def end_older(world: World, state: State, task: int) -> State:
    """End the task that has the key."""
    older = state.store.newest
    if older < 0 or older == task:
        return state
    record = state.store.records[older]
    if record.state in (FRESH, WAITING, DEAD) or (record.state == RUNNING and world.rules.fences_out):
        return put(state, older, Record(SUPERSEDED, record.fence))
    if record.state == RUNNING:
        return put(state, older, Record(GONE, record.fence))  # Its run may still commit.
    return state


def take(state: State, task: int, place: str, rank: int = 0) -> State:
    """Give the key to a task. Its rank is that of its push, or the time if this is it."""
    clock = state.clock + 1
    rank = rank or max(clock, state.store.rank + 1)
    state = put(state, task, Record(place, clock))._replace(clock=clock)
    return state._replace(store=state.store._replace(newest=task, rank=max(rank, state.store.rank)))


def put(state: State, task: int, record: Record) -> State:
    records = (*state.store.records[:task], record, *state.store.records[task + 1 :])
    return state._replace(store=state.store._replace(records=records))


def _at(state: State, task: int, producer: str) -> State:
    return state._replace(producers=(*state.producers[:task], producer, *state.producers[task + 1 :]))


# -- running ------------------------------------------------------------------------------------------------------


def claim(world: World, state: State, copy: Copy) -> State:
    record = state.store.records[copy.task]
    if record.state == NONE:
        return first_claim(world, state, copy)
    if record.state == FRESH and copy.fence in (0, record.fence):
        return grant(state, copy)
    return grant(state, copy) if record.state == WAITING and copy.fence == record.fence else state


def first_claim(world: World, state: State, copy: Copy) -> State:
    """A copy without a record: it was forgotten, or the store lost data."""
    if not world.rules.joins:
        return grant(state, copy)
    joined = join(world, state, copy.task, copy.rank)
    return grant(joined, copy) if joined is not None else put(state, copy.task, Record(SUPERSEDED, 0))


def join(world: World, state: State, task: int, rank: int) -> State | None:
    """Ask for the key in the name of a task without a record; None: a newer one has it, or it has ended."""
    store = state.store
    if world.rules.ranked and store.newest >= 0 and rank <= store.rank:
        return None
    return take(end_older(world, state, task), task, FRESH, rank)


def grant(state: State, copy: Copy) -> State:
    task, clock = copy.task, state.clock + 1
    late = [newer for newer in _newer(state, task) if state.producers[newer] == RETURNED or newer in state.begun]
    state = put(state, task, Record(RUNNING, clock))._replace(clock=clock, begun=state.begun | {task})
    state = state._replace(runs=state.runs | {Run(task, clock, copy.rank)})
    return state._replace(broken="an older one starts") if late else state


def ends(world: World, state: State, run: Run) -> Iterator[Step[State]]:
    task, record = run.task, state.store.records[run.task]
    over = state._replace(runs=state.runs - {run})
    is_its_own = record.fence == run.fence and record.state in (RUNNING, GONE)
    if not is_its_own and record.fence < run.fence and record.state not in OVER:  # The store lost it.
        adopted = adopt(world, state, run)
        yield Step(f"{task}'s run is adopted", over if adopted is None else adopted)
        return
    if not is_its_own:
        yield Step(f"{task}'s run is refused", over)
        return
    broken = "an older one completes" if _newer(state, task) else ""
    broken = "a task completes twice" if task in state.completed and not state.rolled_back else broken
    done = put(over, task, Record(COMPLETED, run.fence))._replace(completed=(*state.completed, task), broken=broken)
    yield Step(f"{task} completes", done)
    if record.state == GONE:
        return
    if _may(world, state, "failures"):
        yield _fault(state, "failures", f"{task} will be retried", put(over, task, Record(WAITING, run.fence)))
    if _may(world, state, "letters"):
        yield _fault(state, "letters", f"{task} is dead", put(over, task, Record(DEAD, run.fence)))
    if _may(world, state, "crashes"):
        back = over._replace(copies=over.copies | {Copy(task, 0, run.rank)}, clock=state.clock + 1)
        yield _fault(state, "crashes", f"{task}'s worker dies", put(back, task, Record(WAITING, state.clock + 1)))
        buried = put(state._replace(clock=state.clock + 1), task, Record(WAITING, state.clock + 1))
        yield _fault(state, "crashes", f"{task}'s worker is taken for dead", buried)


def adopt(world: World, state: State, run: Run) -> State | None:
    if state.store.records[run.task].state == NONE and world.rules.adoption_asks:
        joined = join(world, state, run.task, run.rank)
        if joined is None:
            return None
        state = joined
    return put(state, run.task, Record(RUNNING, run.fence))._replace(begun=state.begun | {run.task})


# -- what people and faults do ------------------------------------------------------------------------------------


def faults(world: World, state: State) -> Iterator[Step[State]]:
    store = state.store
    for task, record in enumerate(store.records):
        if record.state == DEAD and _may(world, state, "releases"):
            released = put(state, task, Record(WAITING, state.clock + 1))._replace(clock=state.clock + 1)
            if not world.rules.release_asks or store.newest == task:
                yield _fault(state, "releases", f"{task} is released", released)
        if record.state == SUPERSEDED and task in state.begun and _may(world, state, "imports"):
            imported = put(state, task, Record(DEAD, record.fence))
            yield _fault(state, "imports", f"{task}'s letter is imported", imported)
        late = record.state == COMPLETED and _may_come(state, task)  # R5: its id is remembered for longer.
        if record.state in OVER and _may(world, state, "retentions") and not late:
            yield _fault(state, "retentions", f"{task} is forgotten", put(state, task, Record()))
    if _may(world, state, "rollbacks"):
        if state.saved is None:
            yield Step("from here on writes are not durable", state._replace(saved=store), True)
        elif state.saved != store:
            back = state._replace(store=state.saved, saved=None, rolled_back=True, begun=frozenset())
            yield _fault(state, "rollbacks", "the store loses its last writes", back)


def _may(world: World, state: State, kind: str) -> bool:
    return state.faults[KINDS.index(kind)] < int(getattr(world, kind))


def _fault(before: State, kind: str, label: str, after: State) -> Step[State]:
    return Step(label, after._replace(faults=one_more(before.faults, KINDS.index(kind))), True)
