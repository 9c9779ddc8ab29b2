"""One worker process as the rest of the fleet sees it: identity, heartbeat, control channel, local runs."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from dramatiq import Broker

from relier import failpoints
from relier.beating import Heartbeat
from relier.brokers.adapters import adapter_of
from relier.brokers.lanes import give_back
from relier.brokers.place import Place
from relier.checkpoint_files import CheckpointFiles
from relier.control import ControlChannel
from relier.deferred import DeferredCommits
from relier.errors import RunUnknownError, StoreUnavailableError
from relier.event_loops import EventLoops
from relier.gate import Gate
from relier.holds import CHANGED
from relier.hosting import find_hosting
from relier.pulse import Pulse
from relier.quarters import Quarters
from relier.registration import Registration
from relier.runs import LocalRuns, Phase, Run
from relier.settings import Settings
from relier.store import Store
from relier.store.connection import UNAVAILABLE

if TYPE_CHECKING:
    from relier.tracing import Tracing

logger = logging.getLogger(__name__)

T = TypeVar("T")

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
        #: Makes spans; None without traces.
        self.tracing: Tracing | None = None
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
        self.registration = Registration(self)
        self._stopped = threading.Event()
        self._fencing = threading.Lock()
        self.heartbeat = Heartbeat(self, self._stopped)
        #: Only workers run code that may hold the interpreter.
        self.pulse = Pulse(store, self.control.endpoint, self.heartbeat.every) if role == "worker" else None

    # -- coming and going ---------------------------------------------------------------------------------------

    def start(self, queues: tuple[str, ...], threads: int) -> None:
        """Join the fleet: subscribe, register, beat. Waits for the store.

        The subscription comes first, so that an observer who sees this worker appear may take its absence for death.
        """
        self.registration.queues, self.registration.threads = queues, threads
        self.control.start()
        self.control.subscribed.wait(timeout=SUBSCRIPTION_WAIT)
        self.patiently(self.register)
        if not self.shares_redis:  # The store must not forget whom to bury, once messages are fetched.
            self.patiently(self.store.durability.wait)
            self.patiently(self.store.runner.probe)
        self.patiently(self.gate.look)
        if self.pulse is not None:
            self.pulse.tend(self.identity)  # Now: the first task may hold the interpreter before the first beat.
        self.heartbeat.start()

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
        self.heartbeat.join()
        try:
            self.deferred.flush_all()
            self.heartbeat.settle()
            self.store.fleet.leave(self.identity)
        except UNAVAILABLE:
            logger.warning("Left without a word: the store is away. This worker will be declared dead.")
            return False
        return True

    @property
    def is_stopping(self) -> bool:
        """Whether this process leaves the fleet, or has left it."""
        return self._stopped.is_set()

    @property
    def takes_chaos(self) -> bool:
        """Whether `rl chaos` may hurt this process: a worker whose settings say so."""
        return self.settings.chaos_enabled and self.role == "worker"

    # -- what the fleet knows of it -----------------------------------------------------------------------------

    @property
    def queues(self) -> tuple[str, ...]:
        """What this process consumes."""
        return self.registration.queues

    @property
    def code(self) -> str:
        """Names the application's code, when it may come to be parked; else ''."""
        return self.registration.code

    def also_consumes(self, queue: str) -> None:
        """Note that this worker consumes a queue that was declared after its start."""
        self.registration.also_consumes(queue)

    def tell(self) -> None:
        """Tell the fleet what this worker consumes and which actors it has now."""
        self.registration.tell()

    def register(self) -> None:
        """Join the fleet, under a new identity when this one was declared dead."""
        while not self.registration.register(self.identity):
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
                    run.lose()
            self.patiently(self.register)

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
        self.heartbeat.hurry()

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
        run.trace_end("handed over" if handed else "lost", reason=why)
        run.stop()
        return handed

    def _hand_over(self, run: Run, why: str) -> bool:
        try:
            return self.patiently(lambda: self.store.tasks.hand_over(run.worker_id, run.sending, run.fence, why))
        except RunUnknownError:
            return False
