"""`rl worker start`: one process's death is repaired and touches no other; nothing outlives the supervisor."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from relier.settings import Settings
from relier.store import Store
from relier.supervisor import LONGEST_PAUSE, Slot, Supervisor, worker_command
from relier_cli.worker import check_flags
from tests.conftest import PrivateServers
from tests.processes import Started, actors, alive, rl_json
from tests.waiting import wait_until


@contextmanager
def supervised(folder: Path, url: str, *flags: str, processes: int = 2, module: str | None = None) -> Iterator[Started]:
    module = module or actors(folder)
    command = ("relier_cli.app", "worker", "start", "--processes", str(processes), "--", module, *flags)
    with Started(folder, *command, redis_url=url) as started:
        yield started


@pytest.fixture
def store(private_server: PrivateServers) -> Iterator[Store]:
    store = Store.from_settings(Settings(redis_url=private_server().url))
    yield store
    store.close()


def url_of(store: Store) -> str:
    return f"unix://{store.client.connection_pool.connection_kwargs['path']}"


def pids(store: Store) -> set[int]:
    return {told["pid"] for told in store.fleet.workers().values()}


def wait_for(store: Store, count: int, more: Callable[[set[int]], bool] = lambda _: True) -> set[int]:
    def there() -> set[int]:
        found = pids(store)
        return found if len(found) == count and more(found) else set()

    return wait_until(there, 60, f"{count} workers")


def test_a_killed_worker_is_replaced_and_the_others_live_on(tmp_path: Path, store: Store) -> None:
    with supervised(tmp_path, url_of(store)) as supervisor:
        victim, witness = sorted(wait_for(store, 2))
        wait_until(lambda: supervisor.output.count("ready for action") == 2, 60, "the end of both boots")
        os.kill(victim, signal.SIGKILL)

        after = wait_for(store, 2, lambda found: victim not in found)

        assert witness in after
        assert alive(witness)
        assert supervisor.terminate() == 0, supervisor.output
    assert not any(map(alive, after))
    assert store.fleet.workers() == {}


def test_a_killed_main_process_takes_its_worker_along_and_is_replaced(tmp_path: Path, store: Store) -> None:
    with supervised(tmp_path, url_of(store), processes=1) as supervisor:
        (worker,) = wait_for(store, 1)
        wait_until(lambda: "ready for action" in supervisor.output, 60, "the end of the boot")
        main = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(main, signal.SIGKILL)

        wait_until(lambda: not alive(worker), 60, "the end of the worker without a main process")
        wait_for(store, 1, lambda found: worker not in found)
        assert supervisor.terminate() == 0


def test_workers_do_not_outlive_a_killed_supervisor(tmp_path: Path, store: Store) -> None:
    with supervised(tmp_path, url_of(store)) as supervisor:
        workers = wait_for(store, 2)
        supervisor.process.kill()
        wait_until(lambda: not any(map(alive, workers)), 60, "the end of the workers")
    assert store.fleet.workers() == {}  # they ended in order


def test_a_second_signal_ends_everything_at_once(tmp_path: Path, store: Store) -> None:
    module, started = actors(tmp_path), tmp_path / "started"
    with supervised(tmp_path, url_of(store), processes=1, module=module) as supervisor:
        (worker,) = wait_for(store, 1)
        push = f"import {module}; {module}.sleep.push({str(started)!r}, 120)"
        (tmp_path / "push.py").write_text(push)
        with Started(tmp_path, "push", redis_url=url_of(store)) as pushing:
            assert pushing.ended() == 0, pushing.output
        wait_until(started.exists, 60, "the task's start")

        supervisor.process.send_signal(signal.SIGINT)
        wait_until(lambda: "Stopping" in supervisor.output, 60, "the supervisor's word")
        supervisor.process.send_signal(signal.SIGINT)

        assert supervisor.ended(10) == 128 + signal.SIGINT
        assert not alive(worker)


def test_a_drained_worker_is_not_replaced_and_the_supervisor_ends_with_the_last_one(
    tmp_path: Path, store: Store
) -> None:
    with supervised(tmp_path, url_of(store), processes=1) as supervisor:
        wait_for(store, 1)
        (worker,) = store.fleet.workers()

        (drained,) = rl_json(tmp_path, "worker", "drain", socket.gethostname(), "--wait", redis_url=url_of(store))

        assert drained == {"worker": worker, "state": "ended", "successor": None}
        assert supervisor.ended() == 0, supervisor.output
    assert "A worker was drained; its place stays empty." in supervisor.output
    assert "Every worker was drained; ending." in supervisor.output
    assert "A worker process ended" not in supervisor.output
    assert store.fleet.workers() == {}


def _field(status: Path, name: str) -> str:
    return next(line.split()[1] for line in status.read_text().splitlines() if line.startswith(name))


def test_workers_that_do_not_end_in_time_are_killed() -> None:
    supervisor = Supervisor(
        [sys.executable, "-c", "import signal, time; signal.signal(15, 1); time.sleep(600)"], 1, 0.1
    )
    slot = Slot(0)
    supervisor._slots = [slot]
    supervisor._start(slot)
    assert slot.process is not None
    ignoring = Path(f"/proc/{slot.process.pid}/status")
    mask = 1 << (signal.SIGTERM - 1)
    wait_until(lambda: int(_field(ignoring, "SigIgn"), 16) & mask, 60, "a process that ignores SIGTERM")
    supervisor._signals.append(signal.SIGTERM)

    assert supervisor._stop(time.sleep) == 1
    assert slot.process.returncode == -signal.SIGKILL


def test_workers_that_all_refuse_end_the_supervisor(tmp_path: Path, store: Store) -> None:
    with supervised(tmp_path, url_of(store), "-Q", "nope") as supervisor:
        assert supervisor.ended() == 1
    assert "Nobody declared the queue 'nope' of -Q. Refusing to start." in supervisor.output
    assert "Every worker process refused to start; giving up." in supervisor.output
    assert "Traceback" not in supervisor.output


def test_a_module_that_breaks_ends_the_supervisor(tmp_path: Path, store: Store) -> None:
    actors(tmp_path, "1 / 0\n", "broken")
    with supervised(tmp_path, url_of(store), processes=1, module="broken") as supervisor:
        assert supervisor.ended() == 1
    assert "Relier could not import the actor module 'broken'." in supervisor.output


def test_quick_deaths_are_answered_with_growing_pauses() -> None:
    supervisor = Supervisor(["/bin/false"], 1)
    pauses = []
    slot = Slot(0)
    supervisor._slots = [slot]
    for _ in range(9):
        supervisor._start(slot)
        assert slot.process is not None
        slot.process.wait()
        before = time.monotonic()
        supervisor._ended(slot, 1)
        pauses.append(round(slot.next_start - before, 1))

    assert pauses == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]


def test_each_process_has_a_dramatiq_of_its_own() -> None:
    assert worker_command(["tasks", "-t", "4"])[1:] == [
        "-m",
        "dramatiq",
        "-p",
        "1",
        "--worker-fork-timeout",
        "1000",
        "relier.workers",
        "tasks",
        "-t",
        "4",
    ]
    assert worker_command(["relier.workers", "tasks"]) == worker_command(["tasks"])


@pytest.mark.parametrize("flags", [["-p", "3"], ["--watch", "."], ["--pid-file", "x"], ["--no-such-flag"]])
def test_flags_that_contradict_the_supervisor_are_misuse(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        check_flags(flags)
    assert ended.value.code == 2
