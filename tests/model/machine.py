"""The whole machine: the initial state, the resurrector's steps, the faults, and all steps together."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import drain, worker
from tests.model import store as ops
from tests.model.rules import Scenario
from tests.model.state import NOBODY, QUEUE, Broker, Copy, Delivery, Process, State, Store, name
from tests.model.worker import Step, put, spend, time_after


def initial(scenario: Scenario) -> State:
    broker = Broker((Copy(0),))
    if not scenario.workers_started:
        return State(Store(), broker, (Process(0, False), Process(1, False)), scenario.budget)
    store = Store(workers=((0, "alive"), (1, "alive")))
    clock = int("clock set back" in scenario.faults)  # There is a time before the beginning.
    return State(store, broker, (Process(0, old=scenario.mixed), Process(1)), scenario.budget, clock)


def steps(scenario: Scenario, state: State) -> Iterator[Step]:
    """All that can happen next. Faults are marked: from any state on, they may also stop."""
    for slot in (0, 1):
        yield from worker.steps(scenario, state, slot)
        yield from drain.steps(scenario, state, slot)
        yield from process_faults(scenario, state, slot)
    yield from burials(scenario, state)
    yield from publish(scenario, state)
    yield from late_arrival(scenario, state)
    yield from server_faults(scenario, state)


def burials(scenario: Scenario, state: State) -> Iterator[Step]:
    """declare_dead, then the obligations: bury this shard, return the dead process's messages."""
    living = {p.identity for p in state.processes if p.alive}
    for identity, stage in state.store.workers:
        if stage == "alive" and identity not in living:
            yield Step(f"{name(identity)} is declared dead", _stage(state, identity, "declared"))
        elif stage == "alive" and spend(scenario, state, "false death"):
            dead = _paid(_stage(state, identity, "declared"))
            yield Step(f"{name(identity)} is declared dead, but lives", dead, True)
        elif stage in ("declared", "left"):
            yield _burial(scenario, state, identity, left=stage == "left")
        elif stage == "moved":
            yield Step(f"{name(identity)} joins the dead set", _stage(state, identity, "buried"))
        elif stage == "buried":
            yield Step(f"messages of {name(identity)} return", _stage(_return(state, identity), identity, "gone"))
        if stage == "declared" and not scenario.rules.bury_before_return and identity not in state.broker.barred:
            yield Step(f"messages of {name(identity)} return", _return(state, identity))


def _burial(scenario: Scenario, state: State, identity: int, left: bool) -> Step:
    moved = _bury(scenario, state, identity, left)
    if scenario.rules.atomic_burial:
        return Step(f"{name(identity)} is buried", _stage(moved, identity, "buried"))
    return Step(f"the runs of {name(identity)} are due", _stage(moved, identity, "moved"))


def _stage(state: State, identity: int, stage: str) -> State:
    return state._replace(store=state.store.with_stage(identity, stage))


def _bury(scenario: Scenario, state: State, identity: int, left: bool) -> State:
    now = state.clock + 1
    store = ops.bury(state.store, now, identity, scenario.max_crashes, left)
    ended = state.once_ended or store.ends > state.store.ends
    return state._replace(store=store, clock=time_after(state, store), once_ended=ended)


def _return(state: State, identity: int) -> State:
    broker = state.broker.requeue(identity)
    return state._replace(broker=broker._replace(barred=tuple(sorted({*broker.barred, identity}))))


def publish(scenario: Scenario, state: State) -> Iterator[Step]:
    """The resurrector's three steps, between which it may crash: peek, enqueue, mark."""
    phase, fence = state.publishing
    record = state.store.record
    if record and record.ahead and scenario.rules.time_goes_on:
        gone_on = state.store._replace(record=record._replace(ahead=False))
        yield Step("the due index goes on from where it was", state._replace(store=gone_on))
    if not phase and record and record.due:
        yield Step(f"resurrector sees {record.fence} due", state._replace(publishing=("peeked", record.fence)))
    if phase == "peeked":
        sent = state._replace(publishing=("sent", fence), broker=state.broker.add(Copy(fence)))
        yield Step(f"resurrector publishes copy {fence}", sent)
    if phase == "sent":
        marked = state._replace(publishing=("", 0), store=ops.mark_published(state.store, fence))
        yield Step(f"resurrector marks {fence} published", marked)
    if phase and spend(scenario, state, "resurrector crash"):
        yield Step("resurrector crashes", _paid(state)._replace(publishing=("", 0)), True)
    yield from grace(scenario, state)


def grace(scenario: Scenario, state: State) -> Iterator[Step]:
    """Published and not claimed in time: due again, at once if no copy is left, by a fault if one is merely slow."""
    record = state.store.record
    if not record or record.due or record.ahead or record.status not in "sh" or record.owner != NOBODY:
        return
    due = state._replace(store=state.store._replace(record=record._replace(due=True)))
    copies = [c for c in state.broker.copies if c.stamp == record.fence]
    coming = Copy(record.fence, QUEUE) in copies or len(copies) > 1
    held = any(d.stamp == record.fence for p in state.processes for d in p.deliveries)
    if not (coming or held):
        yield Step(f"{record.fence} is due again", due)
    elif spend(scenario, state, "impatience"):
        yield Step(f"{record.fence} is due again, too early", _paid(due), True)


def late_arrival(scenario: Scenario, state: State) -> Iterator[Step]:
    for request in dict.fromkeys(state.late):
        rest = list(state.late)
        rest.remove(request)
        call, caller, stamp, fence, asked = request
        store, now = state.store, state.clock + 1
        if call == "claim":
            rules = scenario.rules
            asking = ops.Asking(caller, fence, stamp, asked, scenario.follow_up)
            verdict, store = ops.claim(rules, store, now, asking)
        elif call == "decline":
            verdict, store = ops.decline(store, now, caller, stamp)
        else:
            verdict, store = ops.commit(scenario.rules, store, caller, fence)
        ended = state.once_ended or verdict == "accepted"
        after = state._replace(store=store, clock=time_after(state, store), late=tuple(rest), once_ended=ended)
        yield Step(f"the delayed {call} of {name(caller)} arrives: {verdict}", after)


def process_faults(scenario: Scenario, state: State, slot: int) -> Iterator[Step]:
    process = state.processes[slot]
    if not process.alive:
        return
    me, amqp = process.identity, scenario.broker == "amqp"
    if spend(scenario, state, "kill"):
        killed = put(_paid(state), slot, Process(me, alive=False))
        identities = {me, *(d.caller for d in process.deliveries)}
        yield Step(f"{name(me)} is killed", _disconnect(killed, identities) if amqp else killed, True)
    if amqp and process.deliveries and spend(scenario, state, "blip"):
        cut = tuple(d._replace(connected=False) for d in process.deliveries)
        blip = put(_paid(state), slot, process._replace(deliveries=cut))
        yield Step(f"{name(me)} loses its broker connection", _disconnect(blip, {me}), True)


def _disconnect(state: State, identities: set[int]) -> State:
    broker = state.broker
    for identity in identities:
        broker = broker.requeue(identity)
    return state._replace(broker=broker)


def server_faults(scenario: Scenario, state: State) -> Iterator[Step]:
    if spend(scenario, state, "duplicate"):
        twice = state._replace(broker=state.broker.add(Copy(0)))
        yield Step("the first-hand copy is enqueued again", _paid(twice), True)
    yield from clock_faults(scenario, state)
    for copy in dict.fromkeys(c for c in state.broker.copies if c.stamp > 0 and c.holder == QUEUE):
        if spend(scenario, state, "copy lost"):
            lost = _paid(state)._replace(broker=state.broker.remove(copy))
            yield Step(f"the broker loses copy {copy.stamp}", lost, True)
    if state.saved:
        yield Step("the store's writes are durable", _durable(state))
        yield rollback(scenario, state)
    elif spend(scenario, state, "rollback") and not state.rolled_back:
        saved = _paid(state)._replace(saved=(state.store, state.broker))
        yield Step("from here on the store's writes are not durable", saved, True)
    if state.rolled_back and state.store.floor < state.clock and spend(scenario, state, "rollback"):
        raised = state._replace(store=state.store._replace(floor=state.clock))
        yield Step("another task raises the floor", _paid(raised), True)


def clock_faults(scenario: Scenario, state: State) -> Iterator[Step]:
    """The server's clock jumps, further than anything here takes."""
    if spend(scenario, state, "clock set back"):
        back = _paid(state)._replace(clock=0, store=ops.set_back(state.store))
        yield Step("the server's clock is set back", back, True)
    if spend(scenario, state, "clock set ahead"):
        ahead = _paid(state)._replace(clock=max(state.clock, state.store.floor) + 1)
        yield Step(
            "the server's clock is set ahead", ahead._replace(store=ops.set_ahead(scenario.rules, state.store)), True
        )


def _durable(state: State) -> State:
    processes = [
        p._replace(deliveries=tuple(sorted(d._replace(at_risk=False) for d in p.deliveries))) for p in state.processes
    ]
    return state._replace(saved=None, processes=tuple(processes))


def rollback(scenario: Scenario, state: State) -> Step:
    """The store's server comes back without its last writes; the broker's too if it is the same one."""
    assert state.saved
    store, broker = state.saved
    processes = [
        p._replace(deliveries=tuple(sorted(_outlive(scenario, d) for d in p.deliveries))) for p in state.processes
    ]
    after = state._replace(store=store, saved=None, processes=tuple(processes), rolled_back=True)
    if scenario.same_server:
        after = after._replace(broker=broker)
    return Step("the store loses its last writes", after, True)


def _outlive(scenario: Scenario, d: Delivery) -> Delivery:
    """A delivery that lived through the loss: in doubt about the store, and about the broker if that is the same."""
    doubtful = d.doubtful or scenario.rules.doubt_after_loss
    if d.at_risk and scenario.rules.durable_custody:
        return d._replace(phase="give_back", at_risk=False)  # the wait failed: nobody has custody
    return d._replace(doubtful=doubtful, connected=d.connected and not scenario.same_server)


def _paid(state: State) -> State:
    return state._replace(faults=state.faults - 1)
