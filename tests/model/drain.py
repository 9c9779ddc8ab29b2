"""A worker that is told to end: it takes nothing, hands over what it runs, leaves the fleet, and is gone."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.rules import Scenario
from tests.model.state import Delivery, Process, State, name
from tests.model.worker import Step, hand_over, put, replace, spend


def steps(scenario: Scenario, state: State, slot: int) -> Iterator[Step]:
    """Be told to end (a fault); then what a draining process does besides ending what it runs."""
    process = state.processes[slot]
    if not process.alive:
        return
    if not process.draining:
        if spend(scenario, state, "drain"):
            told = put(state._replace(faults=state.faults - 1), slot, process._replace(draining=True))
            yield Step(f"{name(process.identity)} is told to end", told, True)
        return
    for delivery in dict.fromkeys(process.deliveries):
        yield from _let_go(scenario, state, slot, delivery)
    yield from _leave(scenario, state, slot)


def _let_go(scenario: Scenario, state: State, slot: int, d: Delivery) -> Iterator[Step]:
    """Return what was not begun and never asked for; hand over what runs. Its code may run on for a while."""
    if d.phase == "fetched" and not d.doubtful:
        returned = d._replace(phase="give_back" if scenario.rules.draining_returns else "skip")
        yield Step(f"{name(d.caller)} lets go of copy {d.stamp}", replace(state, slot, d, returned))
    elif d.phase == "running":
        for label, after, fault in hand_over(scenario, state, slot, d):
            yield Step(label, after, fault)
            if not fault:
                running = put(after, slot, state.processes[slot])
                yield Step(f"{label}, its code runs on", replace(running, slot, d, d._replace(phase="lost")))


def _leave(scenario: Scenario, state: State, slot: int) -> Iterator[Step]:
    """Leave, whatever is still here, then end. What was not closed is put back without a crash."""
    process = state.processes[slot]
    me, stage = process.identity, state.store.stage(process.identity)
    if stage == "alive":
        left = "left" if scenario.rules.leaving_is_buried else "gone"
        yield Step(f"{name(me)} leaves the fleet", state._replace(store=state.store.with_stage(me, left)))
        return
    ended = put(state, slot, Process(me, alive=False))
    if scenario.broker == "amqp":
        broker = ended.broker
        for identity in {me, *(d.caller for d in process.deliveries)}:
            broker = broker.requeue(identity)
        ended = ended._replace(broker=broker)
    yield Step(f"{name(me)} ends", ended)
