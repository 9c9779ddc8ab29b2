"""A task that holds the interpreter: its worker lives, and nobody runs the task again."""

from __future__ import annotations

import signal

from tests.conformance.conftest import Fleets
from tests.conformance.topologies import Ground, where

#: Heartbeat TTL (s).
TTL = 4


@where(("rabbitmq",))
def test_a_task_that_holds_the_interpreter_longer_than_the_ttl_runs_once(fleets: Fleets, ground: Ground) -> None:
    """Its connections to the broker are lost meanwhile: a copy that comes back is refused, as its owner lives."""
    fleet = fleets(heartbeat_ttl=TTL)
    holder = fleet.worker(threads=2)
    task = fleet.actors.holding.push(9).id  # more than two TTLs
    fleet.wait(lambda: fleet.effects("began", task), what="its start")
    before = holder.identity
    fleet.worker().wait_ready()
    ground.cut()
    others = [fleet.actors.quick.push(i).id for i in range(20)]

    fleet.wait(lambda: fleet.effects("ran", task), 60, "its end")

    counters = fleet.settle(21)
    assert counters["completed"] == 21
    assert counters.get("crashes", 0) == 0
    assert len(fleet.effects("began", task)) == 1
    assert fleet.counted("ran") == dict.fromkeys([task, *others], 1)
    assert before in fleet.store.fleet.workers()


@where(())
def test_a_worker_that_is_stopped_while_its_interpreter_is_held_is_dead(fleets: Fleets) -> None:
    fleet = fleets(heartbeat_ttl=TTL)
    fleet.workers(2, threads=1)
    task = fleet.actors.holding.push(15).id
    fleet.wait(lambda: fleet.effects("began", task), what="its start")
    holder = fleet.process_of(fleet.effects("began", task)[0].pid)
    before = holder.identity

    holder.signal(signal.SIGSTOP)

    fleet.wait(lambda: len(fleet.effects("began", task)) == 2, 60, "its second run")
    holder.signal(signal.SIGCONT)
    fleet.wait(lambda: holder.identity not in ("", before), 60, "its return under a new identity")
    counters = fleet.settle(1, 60)
    assert counters["completed"] == 1
    assert counters["crashes"] == 1
