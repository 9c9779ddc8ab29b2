"""Tasks that kill their process, among tasks that have done nothing."""

from __future__ import annotations

from tests.conformance.topologies import where
from tests.integration.harness import Harness, ids

#: How many workers a supervisor would keep alive.
WORKERS = 2
INNOCENT = 200
#: Of the poison actor.
MAX_RESURRECTIONS = 2


@where(needs="prefetched")
def test_several_poison_tasks_end_after_their_runs_and_none_of_200_innocent_ones_pays(fleet: Harness) -> None:
    fleet.resurrector().wait_ready()
    fleet.workers(WORKERS, threads=8)
    running = [fleet.actors.gated.push(fleet.gate()).id for _ in range(6)]
    fleet.wait(lambda: len(fleet.effects("began")) == 6, what="innocent tasks running")
    poison = ids(fleet.actors.poison.push() for _ in range(4))
    prefetched = ids(fleet.actors.quick.push_many([fleet.actors.quick.message(i) for i in range(INNOCENT - 6)]))

    def is_over() -> bool:
        keep_alive(fleet)
        counters = fleet.store.counters()
        if counters.get("crashes", 0) >= 6:
            fleet.open_gate()  # Enough innocent ones were killed; as suspects they would keep the poison waiting.
        return not fleet.unsettled(INNOCENT + 4)

    fleet.wait(is_over, 100, "the end of everything")

    counters = fleet.check(INNOCENT + 4)
    assert fleet.dead_ones() == ["max_resurrections_exceeded"] * 4
    runs = fleet.counted("began")
    for task in poison:  # A run that another one's death cut short has left no effect.
        record = fleet.record(task)
        assert record is not None
        assert 1 <= runs[task] <= len(record.runs) == record.crashes == 1 + MAX_RESURRECTIONS, fleet.report()
    assert counters["completed"] == INNOCENT
    assert {*running, *prefetched} == set(fleet.counted("ran"))


def keep_alive(fleet: Harness) -> None:
    """Start a worker for each that died, as a supervisor does."""
    for _ in range(1 + WORKERS - sum(not process.is_over for process in fleet.processes)):
        fleet.worker(threads=8)
