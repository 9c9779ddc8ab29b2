"""One form for all states that mean the same: only the order of times and the identities in use matter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.model.state import NO_BEAT, NOBODY, Broker, Copy, Delivery, Late, Mark, Process, State, Store

Map = dict[int, int]


def normalise(state: State) -> State:
    """Forget unused identities, number the others anew, rank times and fences, order the two workers."""
    state = _counted(state)
    times, names = _ranks(state), _names(state)
    return _swap(_apply(state, times, names))


def _counted(state: State) -> State:
    """Rank each worker's snapshots: only their order counts."""
    marks: tuple[set[int], set[int]] = ({NO_BEAT.snapshots}, {NO_BEAT.snapshots})
    for slot, process in enumerate(state.processes):
        marks[slot].update((process.snapshots, process.beat.snapshots))
    for request in state.late:
        marks[request.caller % 2].add(request.asked.snapshots)
    for store, _ in _worlds(state):
        if store.record and store.record.owner != NOBODY:
            marks[store.record.owner % 2].add(store.record.asked.snapshots)
    ranks = tuple([{count: rank - 1 for rank, count in enumerate(sorted(counts))} for counts in marks])
    if all(rank == count for counts in ranks for count, rank in counts.items()) and not _stale_marks(state):
        return state
    processes = [
        p._replace(snapshots=ranks[slot][p.snapshots], beat=p.beat._replace(snapshots=ranks[slot][p.beat.snapshots]))
        for slot, p in enumerate(state.processes)
    ]
    late = [r._replace(asked=r.asked._replace(snapshots=ranks[r.caller % 2][r.asked.snapshots])) for r in state.late]
    saved = (_count_in(state.saved[0], ranks), state.saved[1]) if state.saved else None
    return state._replace(
        processes=tuple(processes), late=tuple(late), store=_count_in(state.store, ranks), saved=saved
    )


def _stale_marks(state: State) -> bool:
    return any(s.record and s.record.owner == NOBODY and s.record.asked != Mark() for s, _ in _worlds(state))


def _count_in(store: Store, ranks: tuple[Map, ...]) -> Store:
    record = store.record
    if not record:
        return store
    if record.owner == NOBODY:
        return store._replace(record=record._replace(asked=Mark()))
    asked = record.asked._replace(snapshots=ranks[record.owner % 2][record.asked.snapshots])
    return store._replace(record=record._replace(asked=asked))


def _worlds(state: State) -> list[tuple[Store, Broker]]:
    present = [(state.store, state.broker)]
    return [*present, state.saved] if state.saved else present


def _deliveries(state: State) -> Iterator[Delivery]:
    for process in state.processes:
        yield from process.deliveries


def _ranks(state: State) -> Map:
    times = {NOBODY, 0, state.clock, state.publishing[1]}
    for process in state.processes:
        times.add(process.beat.time)
    for d in _deliveries(state):
        times.update((d.fence, d.stamp))
    for request in state.late:
        times.update((request.stamp, request.fence, request.asked.time))
    for store, broker in _worlds(state):
        times.add(store.floor)
        times.update([copy.stamp for copy in broker.copies])
        if store.record:
            times.update((store.record.fence, store.record.asked.time))
    return {time: rank - 1 for rank, time in enumerate(sorted(times))}


def _names(state: State) -> Map:
    used = {process.identity for process in state.processes}
    used.update([d.caller for d in _deliveries(state)])
    used.update([request.caller for request in state.late])
    for store, broker in _worlds(state):
        used.update([copy.holder for copy in broker.copies])
        if store.record:
            used.add(store.record.owner)
    names, following = {NOBODY: NOBODY}, [0, 1]
    for identity in sorted(used - {NOBODY}):
        names[identity] = following[identity % 2]
        following[identity % 2] += 2
    return names


def _apply(state: State, times: Map, names: Map) -> State:
    store, broker, processes, faults, clock, publishing, saved, late, *ghosts = state
    return State(
        _store(store, times, names),
        _broker(broker, times, names),
        tuple([_process(process, times, names) for process in processes]),
        faults,
        times[clock],
        (publishing[0], times[publishing[1]]),
        (_store(saved[0], times, names), _broker(saved[1], times, names)) if saved else None,
        tuple(sorted([_late(request, times, names) for request in late])),
        *ghosts,
    )


def _late(request: Late, times: Map, names: Map) -> Late:
    call, caller, stamp, fence, asked = request
    return Late(call, names[caller], times[stamp], times[fence], asked._replace(time=times[asked.time]))


def _store(store: Store, times: Map, names: Map) -> Store:
    record, floor, workers, ends = store
    if record:
        asked = record.asked._replace(time=times[record.asked.time])
        record = record._replace(fence=times[record.fence], owner=names[record.owner], asked=asked)
    known = [(names[identity], stage) for identity, stage in workers if identity in names]
    return Store(record, times[floor], tuple(sorted(known)), ends)


def _broker(broker: Broker, times: Map, names: Map) -> Broker:
    copies = sorted([Copy(times[stamp], names[holder]) for stamp, holder in broker.copies])
    barred = sorted([names[identity] for identity in broker.barred if identity in names])
    return Broker(tuple(copies), tuple(barred))


def _process(process: Process, times: Map, names: Map) -> Process:
    identity, alive, deliveries, beat, count, *flags = process
    moved = [
        Delivery(names[caller], times[stamp], phase, times[fence], *rest)
        for caller, stamp, phase, fence, *rest in deliveries
    ]
    return Process(names[identity], alive, tuple(sorted(moved)), beat._replace(time=times[beat.time]), count, *flags)


def _swap(state: State) -> State:
    """Name the workers so that of two mirrored states only one is searched."""
    for mine, other in zip(_views(state, 0), _views(state, 1), strict=True):
        if mine != other:
            break
    else:
        return state
    if mine <= other:
        return state
    mirrored = _apply(state, _SAME, _MIRROR)
    return mirrored._replace(processes=mirrored.processes[::-1])


#: Ranks are small, and so are the numbers of identities.
_SAME: Map = {NOBODY: NOBODY} | {rank: rank for rank in range(100)}
_MIRROR: Map = {NOBODY: NOBODY} | {identity: identity ^ 1 for identity in range(100)}


def _views(state: State, slot: int) -> Iterator[tuple[Any, ...]]:
    """All that the state says about one worker, in terms that do not name it, one part after the other."""
    own = state.processes[slot]
    yield own.identity // 2, own.alive, own.old, own.draining, own.beat, own.snapshots
    yield tuple([(d.caller // 2, *d[1:]) for d in own.deliveries])
    for store, broker in _worlds(state):
        yield _world_view(store, broker, slot)
    yield tuple([(r.call, r.caller // 2, r.stamp, r.fence) for r in state.late if r.caller % 2 == slot])


def _world_view(store: Store, broker: Broker, slot: int) -> tuple[Any, ...]:
    owner = store.record.owner if store.record else NOBODY
    return (
        owner // 2 if owner != NOBODY and owner % 2 == slot else NOBODY,
        tuple([(identity // 2, stage) for identity, stage in store.workers if identity % 2 == slot]),
        tuple([(c.stamp, c.holder // 2) for c in broker.copies if c.holder != NOBODY and c.holder % 2 == slot]),
        tuple([identity // 2 for identity in broker.barred if identity % 2 == slot]),
    )
