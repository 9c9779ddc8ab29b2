"""A large backlog of delayed tasks waits in the store, not in the broker, and not in any worker."""

from __future__ import annotations

from pathlib import Path

from tests.integration.harness import Harness, Process

TASKS = 5000
HOUR_MS = 3_600_000


def _memory(process: Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_delayed_tasks_are_loaded_into_no_worker(fleet: Harness) -> None:
    processes = [fleet.worker(), fleet.resurrector()]
    first = fleet.actors.quick.push(1)
    fleet.wait(lambda: fleet.counted("ran")[first.id] == 1, 30, "the first task")
    before = [_memory(process) for process in processes]

    for _ in range(TASKS):
        fleet.actors.noop.send_with_options(delay=HOUR_MS)
    last = fleet.actors.quick.push(2)
    soon = fleet.actors.quick.send_with_options(args=(3,), delay=10)
    ids = (last.id, soon.message_id)
    fleet.wait(lambda: all(fleet.counted("ran")[task] == 1 for task in ids), 30, "the last tasks")

    assert fleet.store.live()["due"] >= TASKS
    fleet.wait(lambda: fleet.held("default") == 0, 30, "an empty broker")
    grown = [_memory(process) - was for process, was in zip(processes, before, strict=True)]
    assert max(grown) < 10 * 2**20, grown
