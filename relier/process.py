"""One worker process as the rest of the fleet sees it: identity, heartbeat, control channel, local runs."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import cached_property
from typing import Any, TypeVar

from dramatiq import Broker

from relier import __version__, failpoints
from relier.brokers.adapters import adapter_of
from relier.brokers.lanes import give_back
from relier.brokers.place import Place
from relier.checkpoint_files import CheckpointFiles
from relier.control import ControlChannel
from relier.deferred import DeferredCommits
from relier.endurance import endless
from relier.errors import RunUnknownError, StoreUnavailableError
from relier.event_loops import EventLoops
from relier.gate import Gate
from relier.holds import CHANGED
from relier.hosting import find_hosting
from relier.knowledge import actors_of, digest
from relier.parking import code_of
from relier.pulse import Pulse
from relier.quarters import Quarters
from relier.runs import LocalRuns, Phase, Run
from relier.settings import Settings
from relier.store import Store
from relier.store.connection import UNAVAILABLE

logger = logging.getLogger(__name__)

T = TypeVar("T")

_AWAY: tuple[type[Exception], ...] = (*UNAVAILABLE, StoreUnavailableError)

#: Longest time (s) between two beats.
BEAT_INTERVAL = 1.0
#: How often (s) settlements that found no other call to ride on are sent.
SETTLE_INTERVAL = 0.2
#: How often (s) the store's view of this process is compared with its own.
RECONCILE_INTERVAL = 10.0
#: How long (s) a starting worker waits for its subscription; without one its beat alone shows that it lives.
SUBSCRIPTION_WAIT = 2.0
#: Longest pause (s) between two tries while the store is away.
PATIENCE_STEP = 0.5


def new_identity() -> str:
    """Return a fresh worker id: host, process id, random."""
    return f"{socket.gethostname()[:24]}:{os.getpid()}:{secrets.token_hex(5)}"


class WorkerProcess:
    """The runtime of one process that runs tasks (or sweeps).

    Parameters:
      broker: what it consumes.
      store: where fates are decided.
      settings: the process's settings.
      role: `worker` or `resurrector`.
    """

    def __init__(self, broker: Broker, store: Store, settings: Settings, role: str = "worker") -> None:
        self.broker = broker
        self.adapter = adapter_of(broker)
        self.store = store
        self.settings = settings
        self.role = role
        #: The process that acts for this worker; a forked child must not.
        self.pid = os.getpid()
        #: What becomes of the others when this process ends.
        self.hosting = find_hosting(role)
        self.identity = new_identity()
        self.runs = LocalRuns()
        self.quarters = Quarters()
        self.loops = EventLoops()
        self.deferred = DeferredCommits(self)
        self.gate = Gate(store, self.adapter)
        self.control = ControlChannel(store, lambda: self.identity, self._handle)
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {"cancel": self._cancel, CHANGED: self._hurry}
        #: '', draining, or drained: no task is started any more.
        self.state = ""
        self._leaving = threading.Lock()
        self._left: bool | None = None
        self._queues: tuple[str, ...] = ()
        #: What it has told of its actors: the newest payload version of each.
        self._actors: dict[str, int] = {}
        self._code = ""
        self._threads = 0
        self._started_at = time.time()
        self._stopped = threading.Event()
        self._fencing = threading.Lock()
        #: When the store was last heard (monotonic), and whether this worker has stepped back since.
        self._heard = time.monotonic()
        self._withdrawn = False
        #: Called with each beat.
        self.chores: list[Callable[[], None]] = []
        beat = endless(self._keep_beating, self._stopped)
        self._beats = threading.Thread(target=beat, name="relier-heartbeat", daemon=True)
        self._beat_every = min(BEAT_INTERVAL, settings.heartbeat_ttl / 4)
        #: Set when the next beat is to come soon: its answer has news.
        self._in_a_hurry = False
        #: Only workers run code that may hold the interpreter.
        self.pulse = Pulse(store, self.control.endpoint, self._beat_every) if role == "worker" else None

    # -- coming and going ---------------------------------------------------------------------------------------

    def start(self, queues: tuple[str, ...], threads: int) -> None:
        """Join the fleet: subscribe, register, beat. Waits for the store.

        The subscription comes first, so that an observer who sees this worker appear may take its absence for death.
        """
        self._queues, self._threads = queues, threads
        self.control.start()
        self.control.subscribed.wait(timeout=SUBSCRIPTION_WAIT)
        self.patiently(self._register)
        if not self.shares_redis:  # The store must not forget whom to bury, once messages are fetched.
            self.patiently(self.store.durability.wait)
            self.patiently(self.store.runner.probe)
        self.patiently(self.gate.look)
        self._heard = time.monotonic()
        if self.pulse is not None:
            self.pulse.tend(self.identity)  # Now: the first task may hold the interpreter before the first beat.
        self._beats.start()

    def leave(self) -> bool:
        """Leave the fleet in order, once; what could not be closed is handed over by the next sweep.

        False: the store is away, and this worker will be declared dead.
        """
        with self._leaving:
            if self._left is None:
                self._left = self._leave()
            return self._left

    def stop(self) -> bool:
        """Leave, and end what shows that this process lives."""
        left = self.leave()
        if self.pulse is not None:
            self.pulse.stop()
        self.control.stop()
        return left

    def _leave(self) -> bool:
        self._stopped.set()
        if self._beats.is_alive():
            self._beats.join(timeout=5)
        try:
            self.deferred.flush_all()
            self._settle()
            self.store.fleet.leave(self.identity)
        except UNAVAILABLE:
            logger.warning("Left without a word: the store is away. This worker will be declared dead.")
            return False
        return True

    def told(self) -> dict[str, Any]:
        """What this worker tells about itself at registration."""
        return {
            "role": self.role,
            "state": self.state,
            "hosting": self.hosting,
            "grace": self.settings.graceful_shutdown_timeout,
            "host": socket.gethostname(),
            "pid": self.pid,
            "queues": list(self._queues),
            "threads": self._threads,
            "broker": asdict(self.place),
            "broker_id": self.adapter.broker_id,
            "version": __version__,
            "started_at": self._started_at,
            "actors": digest(self._actors),
            "code": self.code,
            "subscribed": self.control.subscribed_as == self.identity,
            "checkpoints": self._checkpoints_told(),
        }

    @property
    def code(self) -> str:
        """Names the application's code, when it may come to be parked; else ''."""
        self._code = self._code or code_of(self.broker, self.settings)
        return self._code

    @property
    def queues(self) -> tuple[str, ...]:
        """What this process consumes."""
        return self._queues

    def also_consumes(self, queue: str) -> None:
        """Note that this worker consumes a queue that was declared after its start."""
        if queue not in self._queues:
            self._queues = (*self._queues, queue)
            self.tell()

    def tell(self) -> None:
        """Tell the fleet what this worker consumes and which actors it has now."""
        if self._stopped.is_set():
            return
        identity, self._actors = self.identity, actors_of(self.broker)
        try:
            if not self.store.fleet.register(identity, self.told(), self._actors) and not self._stopped.is_set():
                self.refence(identity)
        except UNAVAILABLE:
            self._actors = {}  # The next beat tells it.
            logger.debug("The fleet does not know yet of a queue or an actor.")

    def _register(self) -> None:
        self._actors = actors_of(self.broker)
        while not self.store.fleet.register(self.identity, self.told(), self._actors):
            self.identity = new_identity()

    def refence(self, identity: str) -> None:
        """Come back under a new identity after `identity` was declared dead; its runs are lost."""
        with self._fencing:
            if identity != self.identity:
                return
            logger.warning(
                "This worker was declared dead; it continues under a new identity.", extra={"worker": identity}
            )
            self.adapter.renew_broker_id()
            self.identity = new_identity()
            for run in self.runs.running():
                if run.worker_id == identity and run.phase is Phase.RUNNING:
                    self._lose(run)
            self.patiently(self._register)

    def _lose(self, run: Run) -> None:
        run.phase = Phase.LOST
        run.stop()

    # -- waiting for the store ----------------------------------------------------------------------------------

    def patiently(self, call: Callable[[], T]) -> T:
        """Return what `call` returns, repeating it while the store is away.

        Raises `StoreUnavailableError` only when this process is stopping: nothing runs unprotected.
        """
        pause = 0.01
        while True:
            try:
                return call()
            except UNAVAILABLE as error:
                if self._stopped.is_set():
                    raise StoreUnavailableError(f"The store is away ({type(error).__name__}).") from error
                if pause >= PATIENCE_STEP:
                    logger.warning("The store is away; waiting for it.", extra={"error": type(error).__name__})
            time.sleep(pause)
            pause = min(pause * 2, PATIENCE_STEP)

    @cached_property
    def place(self) -> Place:
        """Which broker this is, for others that are to use the same one."""
        return self.adapter.place()

    def _checkpoints_told(self) -> str:
        """Tell for `rl doctor` which folder of checkpoints this process sees: inline, unused, shared or apart."""
        if self.settings.checkpoint_backend != "filesystem":
            return "inline"
        return CheckpointFiles(self.settings.checkpoint_dir, self.store.fleet.checkpoint_folder).standing()

    @cached_property
    def checkpoint_files(self) -> CheckpointFiles:
        """The folder of checkpoints that are too large for the store."""
        name_folder = self.store.fleet.checkpoint_folder
        return CheckpointFiles(
            self.settings.checkpoint_dir, lambda proposed: self.patiently(lambda: name_folder(proposed))
        )

    @property
    def generation(self) -> int:
        """Grows with each lost connection to the store: while it stands still, it was one server."""
        return self.store.runner.generation

    @cached_property
    def shares_redis(self) -> bool:
        """Whether broker and store are one Redis, which loses and keeps the same writes of both."""
        return self.adapter.shares_redis(self.store.client)

    def hand_custody(self, run: Run) -> None:
        """Leave a task to the store: its copy is acknowledged once the store's write is durable (R4).

        When a connection was lost since the run began, the server behind the new one may not have it: then the copy
        goes back. On a broker of ours the acknowledgement waits by itself, else the calling thread does.
        """
        if self.shares_redis:
            return
        if hasattr(run.message, "pledge"):
            run.message.pledge = self.store.custody.pledge(run.generation)
            return
        self.patiently(self.store.durability.wait)
        if run.generation != self.generation:
            give_back(run.message)

    # -- beating ------------------------------------------------------------------------------------------------

    def _keep_beating(self) -> None:
        next_beat = next_reconcile = 0.0
        session = -1
        while not self._stopped.wait(min(SETTLE_INTERVAL, self._beat_every)):
            try:
                self.deferred.flush_all(only_old=True)
                self._settle()
                now = time.monotonic()
                if now < next_beat and not self._in_a_hurry:
                    continue
                self._in_a_hurry = False
                next_beat = now + self._beat_every
                for chore in self.chores:
                    chore()
                heard = self._beat()
                self._in_touch()
                if heard and (now >= next_reconcile or session != self.control.session):
                    next_reconcile, session = now + RECONCILE_INTERVAL, self.control.session
                    self._reconcile()
            except _AWAY as error:
                logger.debug("A beat failed.", extra={"error": type(error).__name__})
                next_reconcile = 0.0
                self._out_of_touch()
            except Exception:
                logger.exception("The heartbeat failed; it goes on.")

    def _in_touch(self) -> None:
        self._heard = time.monotonic()
        if self._withdrawn:
            self._withdrawn = False
            if not self.state:
                self.adapter.resume()

    def _out_of_touch(self) -> None:
        """Leave what was not started to others, when they may long have declared this worker dead."""
        too_long = time.monotonic() - self._heard > self.settings.heartbeat_ttl
        if too_long and not self._withdrawn and self.adapter.withdraw():
            logger.warning("The store is out of reach: what was not started goes back to its queues.")
            self._withdrawn = True

    def _beat(self) -> bool:
        """Beat once; returns False when the answer makes a comparison pointless."""
        identity = self.identity
        answer = self.gate.beat(identity)
        if answer == "gone":
            self.refence(identity)
            return False
        if answer == "unknown" or actors_of(self.broker) != self._actors:
            self._register()
        if self.pulse is not None:
            self.pulse.tend(identity)
        return True

    def _settle(self) -> None:
        settled = self.runs.unsettled()
        for i in range(0, len(settled), 2000):
            batch = settled[i : i + 2000]
            self.store.tasks.settle(batch)
            self.runs.sent(batch)

    def _reconcile(self) -> None:
        number = self.store.tasks.begin_snapshot()
        found = self.store.tasks.reconcile(self.identity, number, self.runs.snapshot())
        if found.released:
            logger.warning("Released runs that this worker does not run.", extra={"count": len(found.released)})
        for task_id in found.lost:
            for run in self.runs.find(task_id):
                if run.phase is Phase.RUNNING and run.worker_id == self.identity:
                    self._lose(run)
        for task_id in found.missing:
            for run in self.runs.find(task_id):
                self._adopt(run)
        for task_id in found.asked:  # The request may have been lost. Whoever heard it cleans up, perhaps.
            for run in self.runs.find(task_id):
                if not run.stops:
                    run.end()

    def _adopt(self, run: Run) -> None:
        with run.lock:
            if run.phase is Phase.RUNNING and run.worker_id == self.identity:
                adopted = self.store.tasks.adopt(self.identity, run.sending, run.fence)
                logger.warning("The store lacked a run; given back.", extra={"task": run.task_id, "adopted": adopted})

    # -- requests from outside ----------------------------------------------------------------------------------

    def on(self, message_type: str, handler: Callable[[dict[str, Any]], None]) -> None:
        """Handle control messages of a type."""
        self._handlers[message_type] = handler

    def _handle(self, message: dict[str, Any]) -> None:
        handler = self._handlers.get(str(message.get("type")))
        if handler is None:
            logger.warning("Ignored a control message of an unknown type.", extra={"type": message.get("type")})
        else:
            handler(message)

    def _hurry(self, _: dict[str, Any]) -> None:
        self._in_a_hurry = True

    def _cancel(self, message: dict[str, Any]) -> None:
        failpoints.hit("cancel-heard")
        for run in self.runs.find(str(message.get("task"))):
            run.end()

    def hand_over(self, run: Run, why: str) -> bool:
        """Give a run to another worker: fence first, then cancel. False when it was no longer ours.

        Its copy is acknowledged where that can wait for the store by itself; else it goes back, to be found stale.
        """
        with run.lock:
            if run.phase is not Phase.RUNNING:
                return False
            give_back(run.message)  # Until the store has it: this process may end before.
            handed = self._hand_over(run, why)
            run.phase = Phase.LOST
            if handed and (self.shares_redis or hasattr(run.message, "pledge")):
                run.message.give_back = False
                self.hand_custody(run)
        failpoints.hit("handed-over")
        run.stop()
        return handed

    def _hand_over(self, run: Run, why: str) -> bool:
        try:
            return self.patiently(lambda: self.store.tasks.hand_over(run.worker_id, run.sending, run.fence, why))
        except RunUnknownError:
            return False
