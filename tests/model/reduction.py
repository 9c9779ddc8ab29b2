"""Steps whose order against all others makes no difference: once no fault is left, take them first and alone.

Each only enables others, is disabled by none, and touches nothing that another step or a property looks at.
"""

from __future__ import annotations

from tests.model.rules import Scenario
from tests.model.state import State
from tests.model.worker import PHASES, Step, restart


def urgent(scenario: Scenario, state: State, steps: list[Step]) -> list[Step]:
    """Return one step that may be taken alone, else all of them."""
    if state.faults or state.saved:
        return steps
    return _process_step(scenario, state) or _burial_step(state, steps) or _publish_step(state, steps) or steps


def _process_step(scenario: Scenario, state: State) -> list[Step]:
    for slot, process in enumerate(state.processes):
        if not process.alive:
            return [restart(state, slot)]
        if process.draining:  # It may end before.
            continue
        for d in process.deliveries:
            own = state.store.stage(d.caller) == "alive" and d.caller == process.identity
            if d.phase == "hooks" or (own and d.phase in ("ack", "skip")):
                return list(PHASES[d.phase](scenario, state, slot, d))
    return []


def _burial_step(state: State, steps: list[Step]) -> list[Step]:
    """Declare, bury and return for an identity that nobody uses and that owns nothing."""
    used = {d.caller for p in state.processes for d in p.deliveries}
    used.update(p.identity for p in state.processes if p.alive)
    used.update(request.caller for request in state.late)
    record = state.store.record
    if record:
        used.add(record.owner)
    for step in steps:
        changed = set(step.state.store.workers) - set(state.store.workers)
        if len(changed) == 1 and not used & {identity for identity, _ in changed}:
            return [step]
    return []


def _publish_step(state: State, steps: list[Step]) -> list[Step]:
    if state.publishing[0]:
        return [step for step in steps if step.state.publishing != state.publishing][:1]
    return []
