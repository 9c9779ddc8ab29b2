"""Who is blamed when a process dies (R9): several tasks, some of them poison, in processes that are started again.

The life cycle itself is the other model's concern: here a task waits, runs in a process, or has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from tests.model.small import Result, plain, search

WAITING, COMPLETED, DEAD = -1, -2, -3


@dataclass(frozen=True, slots=True)
class Rules:
    """R9, piece by piece. One off must give a counterexample."""

    count_bystanders: bool = True
    """Whatever ran in a process that died is counted. Off: only the suspect, when one ran."""
    one_suspect: bool = True
    """A process runs one suspect at a time."""
    last_alone: bool = True
    """A task whose next crash would make it a dead letter runs with nothing beside it."""


@dataclass(frozen=True, slots=True)
class World:
    """Tasks come as (poison?, max_resurrections)."""

    tasks: tuple[tuple[bool, int], ...]
    processes: int = 1
    threads: int = 3
    rules: Rules = Rules()


class Task(NamedTuple):
    poison: bool
    limit: int
    place: int = WAITING  #: or the number of the process that runs it
    crashes: int = 0
    runs: int = 0

    @property
    def suspect(self) -> bool:
        return self.crashes >= max(1, min(2, self.limit))

    @property
    def last(self) -> bool:
        return self.suspect and self.crashes >= self.limit


State = tuple[Task, ...]


def explore(world: World) -> Result:
    """Search it; which of two like tasks comes first makes no difference."""
    start = tuple(Task(poison, limit) for poison, limit in world.tasks)
    return search(
        start, lambda state: plain(tuple(sorted(after)) for after in steps(world, state)), violation, goal=over
    )


def over(state: State) -> bool:
    return all(task.place in (COMPLETED, DEAD) for task in state)


def violation(state: State) -> str:
    poisons = sum(task.poison for task in state)
    for task in state:
        if task.poison and task.runs > 1 + task.limit:
            return f"poison ran {task.runs} times: {state}"
        if not task.poison and task.place == DEAD:
            return f"an innocent task was dead-lettered: {state}"
        if not task.poison and task.crashes > 2 * poisons:
            return f"{poisons} poison tasks took an innocent one down {task.crashes} times: {state}"
    return ""


def steps(world: World, state: State) -> Iterator[State]:
    for i, task in enumerate(state):
        if task.place == WAITING:
            for process in range(world.processes):
                if may_start(world, task, [t for t in state if t.place == process]):
                    yield put(state, i, task._replace(place=process, runs=task.runs + 1))
        elif task.place >= 0 and task.poison:
            yield crash(world, state, task.place)
        elif task.place >= 0:
            yield put(state, i, task._replace(place=COMPLETED))


def may_start(world: World, task: Task, beside: list[Task]) -> bool:
    rules = world.rules
    if len(beside) == world.threads:
        return False
    if rules.last_alone and beside and (task.last or any(t.last for t in beside)):
        return False
    return not (rules.one_suspect and task.suspect and any(t.suspect for t in beside))


def crash(world: World, state: State, process: int) -> State:
    suspect_ran = any(task.suspect for task in state if task.place == process)
    return tuple(_crashed(world, task, suspect_ran) if task.place == process else task for task in state)


def _crashed(world: World, task: Task, suspect_ran: bool) -> Task:
    if suspect_ran and not task.suspect and not world.rules.count_bystanders:
        return task._replace(place=WAITING)
    crashes = task.crashes + 1
    return task._replace(crashes=crashes, place=DEAD if crashes > task.limit else WAITING)


def put(state: State, i: int, task: Task) -> State:
    return (*state[:i], task, *state[i + 1 :])
