"""What must never be seen, and what must always stay reachable."""

from __future__ import annotations

from tests.model.rules import Scenario
from tests.model.state import State


def violation(state: State) -> str:
    """Name the first safety property that this state breaks, or return an empty string."""
    return _doubled(state) or _stolen(state) or _shared(state)


def ended(state: State) -> bool:
    """The task has a recorded end, or had one and the record was dropped or rolled back; completed ⇒ hooks done."""
    record = state.store.record
    if record is None:
        return state.once_ended
    return record.status == "d" or (record.status == "e" and (state.hooks_ran or record.outcome == "dead"))


def settled_for_good(scenario: Scenario, state: State) -> bool:
    """No operation and no rollback can change this record any more: the search need not look further."""
    record = state.store.record
    if not record or not ended(state) or not scenario.rules.ended_is_final or state.saved:
        return False
    if "rollback" in scenario.faults and state.faults and not state.rolled_back:
        return False
    if "clock set ahead" in scenario.faults and state.faults and not scenario.rules.watched_retention:
        return False
    return all(d.fence != record.fence for p in state.processes for d in p.deliveries)


def _doubled(state: State) -> str:
    return "a task has two ends" if state.store.ends > 1 else ""


def _stolen(state: State) -> str:
    """A run whose owner lives and was not declared dead keeps its record. Only a rollback may take it."""
    record = state.store.record
    if state.rolled_back:
        return ""
    for process in state.processes:
        for d in process.deliveries:
            granted = d.phase in ("claim?", "running", "commit?")
            if granted and state.store.stage(d.caller) == "alive" and (not record or record.fence != d.fence):
                return "a live run was stolen"
    return ""


def _shared(state: State) -> str:
    """A grant belongs to one run."""
    runs = [d.fence for p in state.processes for d in p.deliveries if d.phase in ("running", "commit?")]
    return "one grant runs twice at once" if len(runs) != len(set(runs)) else ""
