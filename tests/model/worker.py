"""What a worker process does with a delivery, one step at a time, and what its beats repair."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.model import store as ops
from tests.model.rules import Scenario
from tests.model.state import NO_BEAT, QUEUE, Copy, Delivery, Late, Mark, Process, State, Store, name


class Step(NamedTuple):
    label: str
    state: State
    fault: bool = False


def put(state: State, slot: int, process: Process) -> State:
    first, second = state.processes
    return state._replace(processes=(first, process) if slot else (process, second))


def time_after(state: State, store: Store) -> int:
    """The clock only needs to move when a fence was taken from it."""
    return state.clock + (store.floor > state.store.floor)


def mark(scenario: Scenario, state: State, slot: int) -> Mark:
    """Return this moment in the worker's life, as a claim carries it."""
    return Mark(state.processes[slot].snapshots) if scenario.rules.beat_counts else Mark(time=state.clock + 1)


def asking(scenario: Scenario, state: State, slot: int, d: Delivery) -> ops.Asking:
    return ops.Asking(d.caller, d.fence, d.stamp, mark(scenario, state, slot), scenario.follow_up)


def replace(state: State, slot: int, old: Delivery, new: Delivery | None) -> State:
    """Put `new` in the place of one of the process's deliveries, or drop it."""
    process = state.processes[slot]
    deliveries = list(process.deliveries)
    deliveries.remove(old)
    if new:
        deliveries.append(new)
    return put(state, slot, process._replace(deliveries=tuple(sorted(deliveries))))


def spend(scenario: Scenario, state: State, fault: str) -> bool:
    """Say whether this fault may happen now."""
    return state.faults > 0 and fault in scenario.faults


def steps(scenario: Scenario, state: State, slot: int) -> Iterator[Step]:
    process = state.processes[slot]
    if not process.alive:
        yield restart(state, slot)
        return
    yield from fetch(scenario, state, slot)
    for delivery in dict.fromkeys(process.deliveries):
        yield from PHASES[delivery.phase](scenario, state, slot, delivery)
        yield from readopt(scenario, state, slot, delivery)
    yield from beat(scenario, state, slot)
    yield from return_unheld(scenario, state, slot)
    yield from self_fence(scenario, state, slot)


def restart(state: State, slot: int) -> Step:
    fresh = Process(state.processes[slot].identity + 2)
    store = state.store.with_stage(fresh.identity, "alive")
    return Step(f"{name(fresh.identity)} starts", put(state._replace(store=store), slot, fresh))


def fetch(scenario: Scenario, state: State, slot: int) -> Iterator[Step]:
    process, broker = state.processes[slot], state.broker
    me = process.identity
    if process.draining or me in broker.barred or len(process.deliveries) == 2 or not _registered(scenario, state, me):
        return
    for copy in dict.fromkeys(c for c in broker.copies if c.holder == QUEUE):
        held = process._replace(deliveries=tuple(sorted([*process.deliveries, Delivery(me, copy.stamp)])))
        taken = broker.remove(copy).add(Copy(copy.stamp, me))
        yield Step(f"{name(me)} fetches copy {copy.stamp}", put(state._replace(broker=taken), slot, held))


def _registered(scenario: Scenario, state: State, identity: int) -> bool:
    durable = state.saved[0] if state.saved else state.store
    if scenario.same_server or not scenario.rules.durable_registration:
        durable = state.store
    return durable.stage(identity) != "unknown" and state.store.stage(identity) != "unknown"


def claim(scenario: Scenario, state: State, slot: int, d: Delivery) -> Iterator[Step]:
    rules, who = scenario.rules, name(d.caller)
    if scenario.same_server and not d.connected and rules.drop_disconnected:
        yield Step(f"{who} drops copy {d.stamp}: its server was replaced", replace(state, slot, d, None))
        return
    now = state.clock + 1
    verdict, store = ops.claim(rules, state.store, now, asking(scenario, state, slot, d))
    granted = verdict in ("granted", "replay")
    fence = store.record.fence if granted and store.record else 0
    label = f"{who} claims copy {d.stamp}: {verdict}" + (f" {fence}" if granted else "")
    after = state._replace(store=store, clock=time_after(state, store), late=_name_nonce(state.late, d, fence))
    if verdict == "fenced":
        yield Step(label, _fenced(scenario, after, slot, d))
        return
    phase = {"granted": "running", "replay": "hooks"}.get(verdict, "skip")
    heard = d._replace(phase=phase, fence=fence, at_risk=_at_risk(scenario, state, phase))
    yield Step(label, replace(after, slot, d, heard))
    if granted and d.phase == "fetched":
        unheard = d._replace(phase="claim?", fence=fence)
        yield from lost(scenario, after, slot, d, unheard, label)
        yield from late(scenario, state, slot, d, "claim")


def _fenced(scenario: Scenario, state: State, slot: int, d: Delivery) -> State:
    """Stop at once: a zombie that went on fetching would swallow every copy that is published for it."""
    if not scenario.rules.fenced_copy_kept:
        return replace(state, slot, d, d._replace(phase="skip"))
    dropped = replace(state, slot, d, None)
    return next((step.state for step in self_fence(scenario, dropped, slot)), dropped)


def take(scenario: Scenario, state: State, slot: int, d: Delivery) -> Iterator[Step]:
    if state.processes[slot].draining and d.phase == "fetched" and not d.doubtful:
        return
    yield from (decline if state.processes[slot].old else claim)(scenario, state, slot, d)


def decline(scenario: Scenario, state: State, slot: int, d: Delivery) -> Iterator[Step]:
    who = name(d.caller)
    if not scenario.rules.decline_entrusts:
        yield Step(f"{who} declines copy {d.stamp}", replace(state, slot, d, d._replace(phase="skip")))
        return
    if not d.connected:
        yield Step(f"{who} drops copy {d.stamp}: its connection was lost", replace(state, slot, d, None))
        return
    verdict, store = ops.decline(state.store, state.clock + 1, d.caller, d.stamp)
    label = f"{who} declines copy {d.stamp}: {verdict}"
    after = state._replace(store=store, clock=time_after(state, store))
    if verdict == "fenced":
        yield Step(label, _fenced(scenario, after, slot, d))
        return
    declined = d._replace(phase="skip", at_risk=_at_risk(scenario, state, "skip"))
    yield Step(label, replace(after, slot, d, declined))
    yield from lost(scenario, after, slot, d, d, label)
    yield from late(scenario, state, slot, d, "decline")


def commit(scenario: Scenario, state: State, slot: int, d: Delivery) -> Iterator[Step]:
    verdict, store = ops.commit(scenario.rules, state.store, d.caller, d.fence)
    label = f"{name(d.caller)} commits {d.fence}: {verdict}"
    accepted = verdict == "accepted"
    after = state._replace(store=store, once_ended=state.once_ended or accepted)
    yield Step(label, _close(scenario, after, slot, d, "hooks" if accepted else verdict))
    if accepted and d.phase == "running":
        yield from lost(scenario, after, slot, d, d._replace(phase="commit?"), label)
        yield from late(scenario, state, slot, d, "commit")


def fail(scenario: Scenario, state: State, slot: int, d: Delivery, final: bool) -> Iterator[Step]:
    verdict, store = ops.fail(scenario.rules, state.store, d.fence, final)
    label = f"{name(d.caller)} fails {d.fence}: {verdict}"
    after = state._replace(store=store, once_ended=state.once_ended or verdict == "dead")
    yield Step(label, _close(scenario, after, slot, d, "hooks" if verdict == "dead" else verdict))
    if d.phase == "running" and verdict != "unknown":
        unheard = d._replace(phase="fail final?" if final else "fail?")
        yield from lost(scenario, after, slot, d, unheard, label)


def hand_over(scenario: Scenario, state: State, slot: int, d: Delivery) -> Iterator[Step]:
    verdict, store = ops.hand_over(state.store, state.clock + 1, d.fence)
    label = f"{name(d.caller)} hands over {d.fence}: {verdict}"
    after = state._replace(store=store, clock=time_after(state, store))
    yield Step(label, _close(scenario, after, slot, d, verdict))
    if d.phase == "running" and verdict != "unknown":
        yield from lost(scenario, after, slot, d, d._replace(phase="hand_over?"), label)


def _close(scenario: Scenario, state: State, slot: int, d: Delivery, verdict: str) -> State:
    """Run the hooks, or leave the copy to the store; where that has nothing, give it back to the broker."""
    unknown = "give_back" if scenario.rules.give_back else "skip"
    phase = {"hooks": "hooks", "unknown": unknown}.get(verdict, "skip")
    return replace(state, slot, d, d._replace(phase=phase, at_risk=_at_risk(scenario, state, phase)))


def _at_risk(scenario: Scenario, state: State, phase: str) -> bool:
    """Custody is not durable while a snapshot may come back that knows nothing of the task."""
    return phase == "skip" and state.saved is not None and not scenario.same_server and not state.saved[0].record


def run(scenario: Scenario, state: State, slot: int, d: Delivery) -> Iterator[Step]:
    yield from commit(scenario, state, slot, d)
    for choice in ("fail", "final fail", "hand over"):
        if spend(scenario, state, choice):
            paid = _paid(state)
            branch = hand_over(scenario, paid, slot, d)
            if choice != "hand over":
                branch = fail(scenario, paid, slot, d, final=choice == "final fail")
            yield from (Step(label, after, True) for label, after, _ in branch)


def hooks(scenario: Scenario, state: State, slot: int, d: Delivery) -> Iterator[Step]:
    done = state._replace(hooks_ran=True)
    yield Step(f"{name(d.caller)} runs the hooks", replace(done, slot, d, d._replace(phase="ack")))


def ack(scenario: Scenario, state: State, slot: int, d: Delivery) -> Iterator[Step]:
    after, removed = _remove_copy(scenario, state, d)
    confirmed = removed and scenario.broker == "redis"
    phase = "settle confirmed" if confirmed or not scenario.rules.confirmed_only else "settle"
    label = f"{name(d.caller)} acknowledges copy {d.stamp}" + ("" if confirmed else ", unconfirmed")
    yield Step(label, replace(after, slot, d, d._replace(phase=phase)))


def skip(scenario: Scenario, state: State, slot: int, d: Delivery) -> Iterator[Step]:
    if d.at_risk and scenario.rules.durable_custody:
        return
    after, _ = _remove_copy(scenario, state, d)
    yield Step(f"{name(d.caller)} skips: acknowledges copy {d.stamp}", replace(after, slot, d, None))


def give_back(scenario: Scenario, state: State, slot: int, d: Delivery) -> Iterator[Step]:
    after, removed = _remove_copy(scenario, state, d)
    broker = after.broker.add(Copy(d.stamp)) if removed else after.broker
    label = f"{name(d.caller)} gives copy {d.stamp} back"
    yield Step(label, replace(after._replace(broker=broker), slot, d, None))


def _remove_copy(scenario: Scenario, state: State, d: Delivery) -> tuple[State, bool]:
    copy = Copy(d.stamp, d.caller)
    bound = scenario.rules.ack_bound or scenario.broker == "amqp"
    if copy not in state.broker.copies or (bound and not d.connected):
        return state, False
    return state._replace(broker=state.broker.remove(copy)), True


def settle(scenario: Scenario, state: State, slot: int, d: Delivery) -> Iterator[Step]:
    rules = scenario.rules
    confirmed = d.phase == "settle confirmed" and not d.doubtful
    store = ops.settle(rules, state.store, d.fence, confirmed)
    outcome = "forgotten" if store.record is None and state.store.record else "remembered"
    after = state._replace(store=store)
    yield Step(f"{name(d.caller)} settles {d.fence}: {outcome}", replace(after, slot, d, None))


def lost(scenario: Scenario, applied: State, slot: int, d: Delivery, unheard: Delivery, label: str) -> Iterator[Step]:
    """The call was applied, its reply was lost: the client will repeat it."""
    if spend(scenario, applied, "lost reply"):
        unheard = unheard._replace(doubtful=scenario.rules.doubt_after_repeat)
        after = replace(_paid(applied), slot, d, unheard)
        yield Step(f"{label}, reply lost", after, True)


def late(scenario: Scenario, state: State, slot: int, d: Delivery, call: str) -> Iterator[Step]:
    """The call timed out on its way: the client repeats it, and the first request arrives at any later time."""
    if spend(scenario, state, "late request"):
        request = Late(call, d.caller, d.stamp, d.fence, mark(scenario, state, slot))
        waiting = _paid(state)._replace(late=(*state.late, request))
        label = f"{name(d.caller)} sends {call}, delayed on its way"
        doubtful = d._replace(doubtful=scenario.rules.doubt_after_repeat)
        yield Step(label, replace(waiting, slot, d, doubtful), True)


def _name_nonce(requests: tuple[Late, ...], d: Delivery, fence: int) -> tuple[Late, ...]:
    """A delayed first attempt carries the nonce of the attempt that was granted."""
    return tuple(
        r._replace(fence=fence) if r.fence == 0 and (r.caller, r.stamp) == (d.caller, d.stamp) else r for r in requests
    )


def local(scenario: Scenario, process: Process) -> bool:
    """Say whether the task is in the process's local set under its present identity."""
    before = ("fetched",) if scenario.rules.local_before_claim else ("fetched", "claim?")
    outside = (*before, "skip", "give_back")
    return any(d.phase not in outside and d.caller == process.identity for d in process.deliveries)


def beat(scenario: Scenario, state: State, slot: int) -> Iterator[Step]:
    """Register again, and release what the store says we run and we do not."""
    process, store = state.processes[slot], state.store
    me = name(process.identity)
    if store.stage(process.identity) == "unknown":
        registered = state._replace(store=store.with_stage(process.identity, "alive"))
        yield Step(f"{me} registers again", registered)
    if process.beat != NO_BEAT:
        yield reconcile(scenario, put(state, slot, process._replace(beat=NO_BEAT)), slot, process.beat)
    elif not local(scenario, process):
        begun = put(state, slot, process._replace(snapshots=process.snapshots + 1))
        snapshot = Mark(process.snapshots) if scenario.rules.beat_counts else Mark(time=state.clock)
        yield reconcile(scenario, begun, slot, snapshot)
        if spend(scenario, state, "stale beat"):
            stale = process._replace(snapshots=process.snapshots + 1, beat=snapshot)
            yield Step(f"{me} takes an empty snapshot", put(_paid(state), slot, stale), True)


def _paid(state: State) -> State:
    return state._replace(faults=state.faults - 1)


def reconcile(scenario: Scenario, state: State, slot: int, snapshot: Mark) -> Step:
    caller, now = state.processes[slot].identity, state.clock + 1
    store = ops.reconcile(scenario.rules, state.store, now, caller, snapshot)
    label = f"{name(caller)} beats with nothing local at {max(snapshot)}"
    return Step(label, state._replace(store=store, clock=time_after(state, store)))


def readopt(scenario: Scenario, state: State, slot: int, d: Delivery) -> Iterator[Step]:
    if d.phase not in ("running", "commit?", "fail?") or d.caller != state.processes[slot].identity:
        return
    store = ops.readopt(scenario.rules, state.store, d.caller, d.fence, mark(scenario, state, slot))
    if store != state.store:
        yield Step(f"{name(d.caller)} beats: {d.fence} re-adopted", state._replace(store=store))


def return_unheld(scenario: Scenario, state: State, slot: int) -> Iterator[Step]:
    """Put back what the broker says we hold and we do not: a crash of the server forgot our acknowledgement."""
    process = state.processes[slot]
    if not scenario.rules.return_unheld or scenario.broker != "redis":
        return
    held = {d.stamp for d in process.deliveries if not d.phase.startswith("settle")}
    for copy in dict.fromkeys(state.broker.copies):
        if copy.holder == process.identity and copy.stamp not in held:
            broker = state.broker.remove(copy).add(Copy(copy.stamp))
            label = f"{name(process.identity)} returns copy {copy.stamp}, which it does not hold"
            yield Step(label, state._replace(broker=broker))


def self_fence(scenario: Scenario, state: State, slot: int) -> Iterator[Step]:
    """Learn of one's own death: drop what was not started, return as somebody else; running code runs on."""
    process, old = state.processes[slot], state.processes[slot].identity
    if process.draining or (state.store.stage(old) in ("alive", "unknown") and old not in state.broker.barred):
        return
    amqp = scenario.broker == "amqp"
    kept = [
        d._replace(connected=d.connected and not amqp)
        for d in process.deliveries
        if d.phase not in ("fetched", "claim?")
    ]
    fresh = Process(old + 2, deliveries=tuple(sorted(kept)), old=process.old)
    store = state.store.with_stage(fresh.identity, "alive")
    after = put(state._replace(store=store), slot, fresh)
    if amqp:
        after = after._replace(broker=after.broker.requeue(old))
    yield Step(f"{name(old)} learns of its death, returns as {name(fresh.identity)}", after)


PHASES = {
    "fetched": take,
    "claim?": take,
    "running": run,
    "commit?": commit,
    "fail?": lambda sc, s, slot, d: fail(sc, s, slot, d, final=False),
    "fail final?": lambda sc, s, slot, d: fail(sc, s, slot, d, final=True),
    "hand_over?": hand_over,
    "lost": commit,
    "hooks": hooks,
    "ack": ack,
    "settle": settle,
    "settle confirmed": settle,
    "skip": skip,
    "give_back": give_back,
}
