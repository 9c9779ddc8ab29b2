"""Breadth-first search over all states, traces, and the check that the end stays reachable."""

from __future__ import annotations

import gc

from tests.model import machine
from tests.model.normal import normalise
from tests.model.properties import ended, settled_for_good, violation
from tests.model.reduction import urgent
from tests.model.rules import Scenario
from tests.model.small import Result, first_stuck
from tests.model.state import State


def search(scenario: Scenario) -> Result:
    """Visit every reachable state; stop at the first that breaks a property or cannot reach the end."""
    gc.disable()  # Millions of tuples and no cycle: collecting takes a third of the time.
    try:
        return _search(scenario)
    finally:
        gc.enable()


class _Numbers(dict[State, int]):
    """The number of each state seen: of its normal form, and of the forms in which it came."""

    def __init__(self) -> None:
        self.states: list[State] = []

    def __missing__(self, state: State) -> int:
        after = normalise(state)
        self[state] = number = self.setdefault(after, len(self.states))
        if number == len(self.states):
            self.states.append(after)
        return number


def _search(scenario: Scenario) -> Result:
    numbers = _Numbers()
    states = numbers.states
    assert numbers[machine.initial(scenario)] == 0
    parents: list[int] = [-1]
    causes: list[list[int]] = [[]]
    checkpoint = 500

    def result(broken: str, last: int) -> Result:
        return Result(len(states), broken, _trace(scenario, states, parents, last))

    for at, state in enumerate(states):  # the list grows while it is walked: breadth first
        if at == checkpoint:
            checkpoint *= 2
            stuck = _first_stuck(states, causes, visited=at)
            if stuck is not None:
                return result("the task is stuck", stuck)
        if settled_for_good(scenario, state):
            continue
        for step in urgent(scenario, state, list(machine.steps(scenario, state))):
            known = numbers[step.state]
            if known == len(parents):
                parents.append(at)
                causes.append([])
                broken = violation(states[known])
                if broken:
                    return result(broken, known)
            if not step.fault:
                causes[known].append(at)
    stuck = _first_stuck(states, causes, visited=len(states))
    return Result(len(states)) if stuck is None else result("the task is stuck", stuck)


def _first_stuck(states: list[State], causes: list[list[int]], visited: int) -> int | None:
    """Return the first state that leads neither to an end nor to what was not visited yet, but for faults."""
    return first_stuck(causes, {i for i, state in enumerate(states) if i >= visited or ended(state)})


def _trace(scenario: Scenario, states: list[State], parents: list[int], last: int) -> tuple[str, ...]:
    """Replay the path without normalising, so that a fence keeps its number from line to line."""
    path = []
    while last > 0:
        path.append(states[last])
        last = parents[last]
    labels, state = [], machine.initial(scenario)
    for target in reversed(path):
        step = next(s for s in machine.steps(scenario, state) if normalise(s.state) == target)
        labels.append(step.label)
        state = step.state
    return tuple(labels)
