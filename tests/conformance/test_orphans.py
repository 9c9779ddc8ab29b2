"""A worker whose main process was killed: it ends what it runs or hands it over, and nobody waits for its logs."""

from __future__ import annotations

import os
import signal

from tests.conformance.conftest import Fleets
from tests.conformance.topologies import where
from tests.integration.harness import Harness, Process
from tests.patience import UNHURRIED
from tests.processes import alive


def _kill_main(worker: Process) -> None:
    os.kill(worker.popen.pid, signal.SIGKILL)


@where(("embedded",))
def test_an_orphan_ends_what_it_runs_though_its_logs_fill_the_pipe(fleet: Harness) -> None:
    worker = fleet.worker(threads=3)
    gated = fleet.actors.gated.push(fleet.gate()).id
    fleet.wait(lambda: fleet.effects("began", gated), what="its start")
    pid = worker.pid
    os.kill(worker.popen.pid, signal.SIGSTOP)  # From now on nobody reads the pipe.
    chatty = [fleet.actors.chatty.push(200).id for _ in range(2)]
    fleet.wait(lambda: all(fleet.effects("began", task) for task in chatty), 60, "their start")

    _kill_main(worker)

    fleet.wait(lambda: all(fleet.effects("ran", task) for task in chatty), 60, "the end of those who wrote")
    fleet.wait(lambda: worker.text().count("line 199 xxx") == 2, 60, "what they wrote")
    assert alive(pid)
    fleet.open_gate()
    fleet.wait(lambda: not alive(pid), 60, "the orphan's end")
    assert {effect.pid for effect in fleet.effects()} == {pid}
    assert fleet.store.fleet.workers() == {}  # It left in order.
    assert "The main process is gone: this worker ends as well." in worker.text()
    assert "\0" not in worker.text()
    fleet.worker()
    counters = fleet.settle(3)
    assert counters["completed"] == 3
    assert counters.get("crashes", 0) == counters.get("handed_over", 0) == 0


@where(("rabbitmq",))
def test_an_orphan_hands_over_what_takes_too_long(fleets: Fleets) -> None:
    fleet = fleets()
    fleet.environ |= UNHURRIED
    worker = fleet.worker(threads=2, graceful_shutdown_timeout=0.5)
    tasks = [fleet.actors.gated.push(fleet.gate()).id, fleet.actors.agated.push(fleet.gate()).id]
    fleet.wait(lambda: len(fleet.effects("began")) == 2, what="two running tasks")
    waiting = [fleet.actors.quick.push(i).id for i in range(5)]
    pid = worker.pid
    fleet.worker().wait_ready()

    _kill_main(worker)

    fleet.wait(lambda: not alive(pid), 60, "the orphan's end")
    fleet.wait(lambda: all(len(fleet.effects("began", task)) == 2 for task in tasks), 60, "their second runs")
    fleet.open_gate()
    counters = fleet.settle(7)
    assert counters["handed_over"] >= 2  # A thread that became free may have taken another task.
    assert counters.get("crashes", 0) == counters.get("failed", 0) == 0
    assert all(fleet.effects("ran", task) for task in waiting)
    assert "Time is up: handing over what still runs." in worker.text()
