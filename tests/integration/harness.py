"""Real workers and resurrectors as processes, a producer, and a look at what became of every task."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from relier.brokers import default_broker
from relier.settings import Settings
from relier.store import SHARDS, Record, Store
from tests import guard, spawn
from tests.integration.actors import EFFECTS_VARIABLE, Actors
from tests.servers import RedisServer
from tests.store.look import Look, inconsistencies, look
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]

#: An admission limit that no test reaches unless it is about that.
UNLIMITED = 10**9

_RESURRECTOR = [sys.executable, "-c", "from relier_cli.app import main; main()", "run-resurrector"]

_PRODUCER = """
from relier.boot import use_default_broker
from relier.settings import get_settings
use_default_broker(get_settings())
"""


@dataclass
class Process:
    """A worker (Dramatiq's master with one child) or a resurrector. `pid` is the process that matters."""

    popen: spawn.Child
    log: Path
    store: Store
    _pid: int = 0

    @property
    def pid(self) -> int:
        if not self._pid:
            self._pid = wait_until(self._registered, 60, f"the registration of {self.log.name}: {self.text()[-2000:]}")
        return self._pid

    def wait_ready(self) -> None:
        """Wait until it takes tasks."""
        assert self.pid

    def wait_settled_in(self) -> None:
        """Wait until it has beaten twice: it has looked at the others, and they at it."""
        self.wait_ready()
        wait_until(lambda: self.store.fleet.observe().beats.get(self.identity, 0) >= 2, 60, "two beats")

    @property
    def identity(self) -> str:
        return self._told()[0]

    def _told(self) -> tuple[str, int]:
        for worker, told in self.store.fleet.workers().items():
            pid = int(told["pid"])
            if pid == self._pid or pid == self.popen.pid or parent_of(pid) == self.popen.pid:
                return worker, pid
        return "", 0

    def _registered(self) -> int:
        if self.popen.poll() is not None:
            raise AssertionError(f"{self.log.name} ended with {self.popen.returncode}: {self.text()[-3000:]}")
        return self._told()[1]

    def has(self, pid: int) -> bool:
        """Whether a pid is that of the process that matters; one that has ended need not have registered."""
        return pid in (self._pid, self.popen.pid) or (not self.is_over and self.pid == pid)

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def is_over(self) -> bool:
        return self.popen.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL the process that runs tasks."""
        self.signal(signal.SIGKILL)

    def end(self) -> None:
        """End everything of it, whatever state it is in."""
        guard.forget(self.popen.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)  # its own session: this is master and child
        self.popen.wait()

    def stop(self, timeout: float = 60.0) -> int:
        """SIGTERM; returns the exit code."""
        self.popen.terminate()
        return self.popen.wait(timeout)


def parent_of(pid: int) -> int:
    """Return the parent of a process; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _told(value: Any) -> str:
    """Return a setting as a variable of the environment has it; '' for none."""
    if isinstance(value, tuple):
        return ",".join(f"{each[0]}:{each[1]}" if isinstance(each, tuple) else str(each) for each in value)
    return "" if value is None else str(value)


@dataclass(frozen=True)
class Effect:
    """One line that a task's code left behind."""

    task: str
    actor: str
    fence: int
    crashes: int
    attempt: int
    pid: int
    what: str
    detail: Any
    at: float
    mono: float


class Harness:
    """One fleet on one store and one broker.

    Parameters:
      server: the store; must be empty, or ours alone.
      folder: for logs, the effect log, markers and gates.
      options: settings of every process, by field name; `broker_url` for a broker apart from the store.
    """

    def __init__(self, server: RedisServer, folder: Path, **options: Any) -> None:
        self.server = server
        self.folder = folder
        self.options = {**server.settings, "admission_limit": UNLIMITED, **options}
        self.settings = Settings(**self.options)
        self.store = Store.from_settings(self.settings)
        self.broker: Any = self.make_broker()
        self.environ: dict[str, str] = {}
        self.actor_module = "tests.integration.worker_actors"
        self.actors = Actors(self.broker)
        self.effects_path = folder / "effects"
        self.effects_path.touch()
        self.processes: list[Process] = []
        self._numbers = itertools.count()
        self.identities: set[str] = set()

    def make_broker(self) -> Any:
        """Return the broker of this fleet's producer."""
        return default_broker(self.settings)

    # -- processes ----------------------------------------------------------------------------------------------

    def worker(
        self,
        *,
        threads: int = 4,
        processes: int = 1,
        queues: Sequence[str] = (),
        failpoints: str = "",
        python: str = sys.executable,
        **options: Any,
    ) -> Process:
        """Start a worker; `pid` waits until it is up. `queues`: what it consumes, by default everything."""
        command = [python, "-m", "dramatiq", "relier.workers", "-p", str(processes), "-t", str(threads)]
        command += ["-Q", *queues] if queues else []
        return self._start("worker", command, failpoints, options)

    def workers(self, count: int, **options: Any) -> list[Process]:
        """Start workers and wait until all are up."""
        started = [self.worker(**options) for _ in range(count)]
        return [process for process in started if process.pid]

    def resurrector(self, *, failpoints: str = "", **options: Any) -> Process:
        return self._start("resurrector", _RESURRECTOR, failpoints, options)

    def producer(self, code: str, *, failpoints: str = "") -> Process:
        """Start a process that runs code with the actors as `a`."""
        return self.script(f"from {self.actor_module} import ACTORS as a\n{code}", failpoints=failpoints)

    def script(self, code: str, *, failpoints: str = "", python: str = sys.executable) -> Process:
        """Start a process that runs code beside the fleet's broker."""
        return self._start("producer", [python, "-c", _PRODUCER + code], failpoints, {})

    def _start(self, kind: str, command: list[str], failpoints: str, options: dict[str, Any]) -> Process:
        log = self.folder / f"{kind}-{next(self._numbers)}.log"
        with log.open("wb") as out:
            popen = spawn.start(
                command,
                env=self.environment(failpoints, **options),
                cwd=self.folder,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        guard.watch(popen.pid)
        process = Process(popen, log, self.store)
        self.processes.append(process)
        return process

    def environment(self, failpoints: str = "", **options: Any) -> dict[str, str]:
        """Return what a process of this fleet has in its environment."""
        ours = {f"RELIER_{name.upper()}": _told(value) for name, value in {**self.options, **options}.items()}
        return {
            **os.environ,
            "RELIER_ACTORS": self.actor_module,
            **ours,
            "RELIER_FAILPOINTS": failpoints,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            EFFECTS_VARIABLE: str(self.effects_path),
            **self.environ,
        }

    def close(self) -> None:
        """End every process and connection."""
        for process in self.processes:
            process.end()
        self.broker.close()
        self.store.close()

    def process_of(self, pid: int) -> Process:
        """Return the process that an effect's pid belongs to."""
        return next(process for process in self.processes if process.has(pid))

    def busy_worker(self, tasks: int = 3) -> Process:
        """Push tasks that run until the gate opens; returns a worker that runs some of them."""
        for _ in range(tasks):
            self.actors.gated.push(self.gate())
        self.wait(lambda: len(self.effects("began")) >= tasks, what=f"{tasks} running tasks")
        return self.process_of(self.effects("began")[0].pid)

    # -- gates and markers --------------------------------------------------------------------------------------

    def gate(self, name: str = "gate") -> str:
        """Return the path of a gate; tasks that wait for it go on once `open_gate` made it."""
        return str(self.folder / f"gate-{name}")

    def open_gate(self, name: str = "gate") -> None:
        Path(self.gate(name)).touch()

    def marker(self, name: str) -> Path:
        return self.folder / f"marker-{name}"

    # -- what happened ------------------------------------------------------------------------------------------

    def effects(self, what: str | None = None, task: str | None = None) -> list[Effect]:
        """Return the complete lines of the effect log so far."""
        lines = self.effects_path.read_bytes().split(b"\n")[:-1]
        found = [Effect(**json.loads(line)) for line in lines]
        return [e for e in found if what in (None, e.what) and task in (None, e.task)]

    def counted(self, what: str) -> Counter[str]:
        """Return how often each task left an effect."""
        return Counter(effect.task for effect in self.effects(what))

    def look(self) -> Look:
        """Look at the whole store at once."""
        self.identities |= set(self.store.fleet.workers())
        return look(self.store, range(SHARDS), self._everyone())

    def _everyone(self) -> set[str]:
        gone = {worker.decode() for worker in self.store.runner.command("ZRANGE", self.store.keys.fleet[2], 0, -1)}
        return self.identities | gone | set(self.store.fleet.workers())

    def unsettled(self, ended: int) -> str:
        """Return what is still to happen until `ended` tasks have ended and nothing moves; '' when all is quiet."""
        try:
            return self._unsettled(ended)
        except redis.ConnectionError as error:  # A test has just cut every connection, ours too.
            return f"a look at the store: {error}"

    def _unsettled(self, ended: int) -> str:
        counters = self.store.counters()
        done = sum(counters.get(name, 0) for name in ("completed", "dead", "discarded")) - counters.get("dlq_left", 0)
        if done < ended:
            return f"{done} of {ended} tasks ended: {counters}"
        if held := sum(self.held(queue) for queue in self.queues()):
            return f"{held} messages in the broker"
        if owed := self.store.fleet.observe().obligations:
            return f"obligations {owed}"
        records = self.look().records
        if living := {task: seen for task, seen in records.items() if seen.state in "srh"}:
            return f"living records {living}"
        return ""

    def held(self, queue: str) -> int:
        """Return how many messages of a queue the broker has, waiting or unacknowledged, where it can tell."""
        return int(self.broker.do_qsize(queue))

    def queues(self) -> set[str]:
        """Return every queue that has messages or may get some."""
        return {"default", "high_priority", "low_priority"}

    def settle(self, ended: int, timeout: float = 60.0) -> dict[str, int]:
        """Wait until `ended` tasks have ended and nothing moves; check the account; returns the counters."""
        state = "?"

        def is_quiet() -> bool:
            nonlocal state
            state = self.unsettled(ended)
            return not state

        try:
            wait_until(is_quiet, timeout, "quiet")
        except AssertionError:
            raise AssertionError(f"after {timeout:g} s: {state}\n{self.report()}") from None
        return self.check(ended)

    def check(self, accepted: int | None = None) -> dict[str, int]:
        """Check that records, indexes and counters agree, and that exactly `accepted` tasks were accepted."""
        seen = self.look()
        assert inconsistencies(seen) == [], self.report()
        if accepted is not None:
            assert seen.counters.get("accepted", 0) == accepted, self.report()
        return seen.counters

    def report(self) -> str:
        """Return everything that helps to understand a failure."""
        parts = [f"counters {self.store.counters()}", f"fleet {sorted(self.store.fleet.workers())}"]
        parts += [f"event {event}" for event in self.store.events(60)]
        parts += [f"effect {effect}" for effect in self.effects()[-60:]]
        for process in self.processes:
            parts.append(f"--- {process.log.name} (exit {process.popen.poll()})\n{process.text()[-2500:]}")
        return "\n".join(parts)

    def record(self, task_id: str) -> Record | None:
        return self.store.record(task_id)

    def dead_ones(self) -> list[str]:
        """Return the reasons of all dead letters, sorted."""
        letters = self.store.dead_letters(1000)
        records = (self.store.records([task], shard).get(task) for task, shard, _ in letters)
        return sorted(record.reason for record in records if record)

    def wait(self, condition: Callable[[], Any], timeout: float = 60.0, what: str = "") -> Any:
        """Wait for a condition; a failure shows what is known."""
        try:
            return wait_until(condition, timeout, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report()}") from None


def ids(receipts: Iterable[Any]) -> list[str]:
    return [receipt.id for receipt in receipts]
