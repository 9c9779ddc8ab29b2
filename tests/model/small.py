"""The search that all small models share: breadth first, the shortest trace, and that the goal stays within reach.

A small model gives a first state, the steps from each, what must never be, and the goal. Its states are named tuples;
whatever else it visits in an order of its own it sorts, so that a result does not depend on hashes.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)
W = TypeVar("W")


class Step(NamedTuple, Generic[S]):
    label: str
    state: S
    fault: bool = False  #: nobody may count on it


@dataclass(frozen=True, slots=True)
class Result:
    """The number of states seen; a violated property and its shortest trace, if there is one."""

    states: int
    broken: str = ""
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.broken or 'holds'} ({self.states} states)"]
        return "\n".join([*lines, *(f"  {i}. {step}" for i, step in enumerate(self.trace, 1))])


def search(
    start: S,
    steps: Callable[[S], Iterable[Step[S]]],
    violation: Callable[[S], str],
    goal: Callable[[S], bool] = lambda _: True,
    otherwise: str = "stuck",
) -> Result:
    """Visit every state; stop at the first violation ('' is none).

    From every state the goal must be within reach without another fault; `otherwise` says what it means when not.
    """
    states, numbers = [start], {start: 0}
    parents: list[tuple[int, str]] = [(-1, "")]
    causes: list[list[int]] = [[]]
    for at, state in enumerate(states):  # the list grows while it is walked: breadth first
        if broken := violation(state):
            return Result(len(states), broken, _trace(parents, at))
        for step in steps(state):
            known = numbers.setdefault(step.state, len(states))
            if known == len(states):
                states.append(step.state)
                parents.append((at, step.label or str(step.state)))
                causes.append([])
            if not step.fault:
                causes[known].append(at)
    stuck = first_stuck(causes, {i for i, state in enumerate(states) if goal(state)})
    return Result(len(states)) if stuck is None else Result(len(states), otherwise, _trace(parents, stuck))


def first_stuck(causes: list[list[int]], hopeful: set[int]) -> int | None:
    """Walk back from the states that need no hope; return the first state that is not reached so.

    `causes`: for each state the numbers of those that a step which is no fault leads from.
    """
    pending = list(hopeful)
    while pending:
        for cause in causes[pending.pop()]:
            if cause not in hopeful:
                hopeful.add(cause)
                pending.append(cause)
    return next((i for i in range(len(causes)) if i not in hopeful), None)


def _trace(parents: list[tuple[int, str]], last: int) -> tuple[str, ...]:
    labels = []
    while last > 0:
        last, label = parents[last]
        labels.append(label)
    return tuple(reversed(labels))


def plain(states: Iterable[S], *, fault: bool = False) -> Iterator[Step[S]]:
    """Make steps of states; a trace shows the states themselves."""
    return (Step("", state, fault) for state in states)


def one_more(used: tuple[int, ...], kind: int) -> tuple[int, ...]:
    """Count another fault of this kind."""
    return (*used[:kind], used[kind] + 1, *used[kind + 1 :])


def without(world: W, rule: str) -> W:
    """Return a world with one rule off."""
    off: Any = world
    return replace(off, rules=replace(off.rules, **{rule: False}))  # type: ignore[no-any-return]
