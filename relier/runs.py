"""The runs of one worker process: what it is running, and what it has ended but not yet settled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from itertools import count
from typing import TYPE_CHECKING, Any

from relier import interrupts, log_context
from relier.envelope import Stamp
from relier.schema import Arguments
from relier.store import SHARDS, Sending, Settled
from relier.store.fleet import Busy

if TYPE_CHECKING:
    from relier.checkpoints import Checkpoint
    from relier.tracing import TaskSpan

#: Of how many queues and actors a worker tells what runs: a beat stays small.
BUSY_TOLD = 50

#: Tells a worker's claims from each other. Counting asks no system call of every task.
_nonces = count()


class Phase(Enum):
    """How far a run has come."""

    CLAIMING = "claiming"
    RUNNING = "running"
    CLOSED = "closed"  #: committed, failed, discarded or handed over
    LOST = "lost"  #: the store gave the task to somebody else


@dataclass(eq=False)
class Run:
    """One run of a task in this process, from before its claim until it is settled."""

    message: Any
    stamp: Stamp
    sending: Sending
    worker_id: str
    #: The store connections' generation at its beginning: another one at its end means doubt.
    generation: int = 0
    nonce: bytes = field(default_factory=lambda: (next(_nonces) % 2**32).to_bytes(4, "big"))
    fence: int = 0
    attempt: int = 0
    crashes: int = 0
    phase: Phase = Phase.CLAIMING
    hooks_pending: bool = False
    final_failure: bool = False
    exhausted: bool = False  #: whether it failed for good without having asked for it
    failure_told: bool = False  #: whether `on_failure` was sent for its failure, before that was recorded
    settles: bool = False  #: whether its end is settled after the acknowledgement
    #: What the actor gets when that is not what was sent: migrated from an older version of its payload.
    arguments: Arguments | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    #: Cancels the user code where that is possible (async actors).
    cancel: Callable[[], None] | None = None
    #: Whether the user code is to stop; noted as well because it may not have begun.
    stops: bool = False
    #: The thread that is in a sync actor's code; see `relier.interrupts`.
    thread: int = 0
    is_interrupted: bool = False
    #: What an earlier run left of its work, and where this one leaves its own; from the grant on.
    checkpoint: Checkpoint | None = None
    #: Its span; None without traces.
    trace: TaskSpan | None = None
    #: Held while the run is closed or adopted, so that one does not overtake the other.
    lock: threading.Lock = field(default_factory=threading.Lock)

    def trace_end(self, outcome: str, error: BaseException | None = None, **attributes: str | int | float) -> None:
        """End its span, if it has one, with what became of it."""
        if self.trace is not None:
            self.trace.end(outcome, error, **attributes)

    def stop(self) -> None:
        """Ask the user code to stop where that is possible, or not to begin."""
        self.stops = True
        if (cancel := self.cancel) is not None:
            cancel()

    def lose(self) -> None:
        """Note that the store gave the task to somebody else."""
        self.phase = Phase.LOST
        self.stop()

    def end(self) -> None:
        """Ask the user code to stop, and interrupt it where it cannot be asked: its task was cancelled."""
        self.stop()
        interrupts.interrupt(self)

    @property
    def task_id(self) -> str:
        return self.stamp.task_id

    @property
    def actor_name(self) -> str:
        return str(self.message.actor_name)

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments that the actor gets, migrated."""
        return tuple(self.message.args if self.arguments is None else self.arguments[0])

    @property
    def kwargs(self) -> dict[str, Any]:
        return dict(self.message.kwargs if self.arguments is None else self.arguments[1])


#: The run that the current user code belongs to.
current: ContextVar[Run | None] = log_context.current


def enter(run: Run) -> None:
    """Let what follows in this context, and what is copied from it, be a run's user code."""
    current.set(run)
    log_context.bind(run)


def leave() -> None:
    """Let what follows in this context be nobody's user code. It may be called once too often."""
    current.set(None)
    log_context.unbind()


class LocalRuns:
    """What this process runs and has not settled. A run is in here before its claim is sent (R8)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: set[Run] = set()
        self._unsettled: list[dict[tuple[str, int], Settled]] = [{} for _ in range(SHARDS)]

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, run: Run) -> None:
        with self._lock:
            self._runs.add(run)

    def remove(self, run: Run) -> None:
        with self._lock:
            self._runs.discard(run)

    def ended(self, run: Run, confirmed: bool) -> None:
        """Move a run whose copy is acknowledged to the settlements."""
        settled = Settled(run.task_id, run.stamp.shard, run.fence, confirmed, run.generation)
        with self._lock:
            self._unsettled[settled.shard][settled.task_id, settled.fence] = settled
            self._runs.discard(run)

    def running(self) -> list[Run]:
        with self._lock:
            return list(self._runs)

    def busy(self) -> list[Busy]:
        """Return what runs, by queue and actor: the most frequent, at most `BUSY_TOLD`."""
        now, found = datetime.now(UTC), dict[tuple[str, str], tuple[int, float]]()
        for run in self.running():
            if run.phase is Phase.RUNNING:
                kind = run.sending.queue, run.sending.actor
                runs, longest = found.get(kind, (0, 0.0))
                found[kind] = runs + 1, max(longest, (now - run.started_at).total_seconds())
        most = sorted(found.items(), key=lambda item: -item[1][0])[:BUSY_TOLD]
        return [Busy(*kind, runs, round(longest, 3)) for kind, (runs, longest) in most]

    def find(self, task_id: str) -> list[Run]:
        return [run for run in self.running() if run.task_id == task_id]

    def unsettled(self, shard: int | None = None, limit: int = 10_000) -> list[Settled]:
        """Return settlements that are still to be sent: of one shard, or of all."""
        with self._lock:
            if shard is not None:
                waiting = self._unsettled[shard]
                return list(waiting.values())[:limit] if waiting else []
            return [settled for shard_map in self._unsettled for settled in shard_map.values()][:limit]

    def sent(self, settled: Iterable[Settled]) -> None:
        """Forget settlements that reached the store."""
        with self._lock:
            for item in settled:
                self._unsettled[item.shard].pop((item.task_id, item.fence), None)

    def snapshot(self) -> dict[int, list[tuple[str, int]]]:
        """Return pairs of task id and fence by shard, for every shard."""
        with self._lock:
            view = {
                shard: [(s.task_id, s.fence) for s in waiting.values()] for shard, waiting in enumerate(self._unsettled)
            }
            for run in self._runs:
                view[run.stamp.shard].append((run.task_id, run.fence if run.phase is Phase.RUNNING else 0))
            return view
