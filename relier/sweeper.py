"""The sweep: declare the dead, bury them, publish what is due.

The resurrector does it; while there is none, a worker process does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import chain

import redis
from dramatiq.errors import BrokerConnectionError

from relier import failpoints
from relier.brokers.lanes import Lanes
from relier.brokers.place import Place
from relier.checkpoint_sweep import CheckpointSweep
from relier.endurance import endless
from relier.fleet_checks import misplacement
from relier.knowledge import FleetView, Told
from relier.leases import Leases
from relier.letter_sweep import LetterSweep
from relier.parking import lift_what_is_over
from relier.process import WorkerProcess
from relier.publisher import Publisher
from relier.rollback_checks import RollbackWatch
from relier.store import SHARDS
from relier.store.connection import UNAVAILABLE
from relier.telling import tell_crashed
from relier.watch import Watch

logger = logging.getLogger(__name__)

_AWAY: tuple[type[Exception], ...] = (*UNAVAILABLE, BrokerConnectionError)

#: How often (s) the workers' queues are read again although the fleet looks the same.
FLEET_REFRESH = 5.0
#: How often (s) the broker is asked for unacknowledged messages that belong to nobody.
STRAYS_INTERVAL = 10.0
#: How long (s) a sweeper that cannot reach the broker leaves sweeping to others.
ABSTENTION = 2.0
#: Longest time (s) of publishing before the fleet is looked at again: deaths are seen in a flood, too.
MOMENT = 0.2
#: How many shards one round trip buries.
BURIED_AT_ONCE = 32


class Sweeper:
    """One sweeper of the fleet.

    Parameters:
      process: whose store, broker, control channel and identity are used.
      dedicated: whether this is a resurrector.
    """

    def __init__(self, process: WorkerProcess, dedicated: bool = False) -> None:
        settings = process.settings
        self.process = process
        self.store = process.store
        self.settings = settings
        self.watch = Watch(
            process.store,
            process.control,
            lambda: process.identity,
            settings.heartbeat_ttl,
            settings.resurrection_check_interval,
        )
        self.lanes = Lanes(process.broker)
        self.publisher = Publisher(process.store, self.lanes, settings, process.tracing)
        self._absent: set[str] = set()
        self.leases = Leases(process.store, lambda: process.identity, dedicated, lambda w: w in self._absent)
        #: Why a resurrector is of no use here; '' while it is.
        self.misplaced = ""
        self.fleet = FleetView(process.store, self._is_reached)
        self._doubt = ""
        self._abstains_until = 0.0
        self._strays_read = time.monotonic()
        self._strays: set[str] = set()
        self._checkpoints = CheckpointSweep(process.checkpoint_files, process.store)
        self._letters = LetterSweep(process.store, settings)
        self._rollbacks = RollbackWatch(process.store)

    def tick(self) -> bool:
        """Sweep once; returns whether there is more to publish at once.

        Raises what store and broker raise while they are away; nothing is lost by that.
        """
        if time.monotonic() < self._abstains_until:
            return False
        failures = self.store.runner.failures
        self._renew()
        if self.leases.held:
            failpoints.hit("leased")
        try:
            self._rollbacks.look(self.leases.shards)
            if self.leases.watches:
                self._watch()
            self._letters.tend(self.leases.shards, count=self.leases.watches)
            return bool(self.leases.shards) and self._publish_due()
        except _AWAY:
            if failures == self.store.runner.failures and not self.process.shares_redis:
                self._abstain()
            raise

    def _abstain(self) -> None:
        """Leave sweeping to others: the store is there, so it is this process that cannot reach the broker."""
        self._abstains_until = time.monotonic() + ABSTENTION
        self.stop()

    def stop(self) -> None:
        """Give the leases back."""
        try:
            self.leases.release()
        except UNAVAILABLE:
            logger.debug("The leases will be taken over.")

    def _renew(self) -> None:
        if not self.leases.watches:
            self._absent = self.watch.absent(sorted(self.leases.holders() - {"", self.process.identity}))
        self.leases.renew(self.store.fleet.leases())

    # -- the dead -----------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        seen = self.store.fleet.observe()
        dead = self.watch.observe(seen.signs)
        failpoints.hit("observed")
        declared = [worker for worker in dead if self._declare(worker)]
        for worker in {*seen.obligations, *declared}:
            try:
                self._fulfil(worker)
            except redis.ResponseError:  # One worker's trouble must not keep the others' tasks waiting.
                logger.exception("A worker could not be buried; the next sweep tries again.", extra={"worker": worker})
        if self.fleet.workers != set(seen.beats) - set(declared) or self.fleet.is_older_than(FLEET_REFRESH):
            self._look_at_fleet()
        if time.monotonic() - self._strays_read > STRAYS_INTERVAL:
            self._return_strays()
        if self.settings.checkpoint_backend == "filesystem":
            self._checkpoints.begin_if_due()

    def _declare(self, worker: str) -> bool:
        failpoints.hit("before-declare")
        self.watch.forget(worker)
        if not self.store.fleet.declare_dead(worker):
            return False
        logger.warning("Worker death detected; replaying orphaned task.", extra={"worker": worker})
        failpoints.hit("declared")
        return True

    def _fulfil(self, worker: str) -> None:
        """Do what is owed to a worker that is gone (R6). A crash anywhere in here leaves the obligation visible."""
        owed = self.store.fleet.obligation(worker)
        if owed is None:
            return
        put_back = 0
        with self._burying(worker) as tell:
            for first in range(0, SHARDS, BURIED_AT_ONCE):
                put_back += self._bury(worker, list(range(first, first + BURIED_AT_ONCE)), owed["how"])
                failpoints.hit("buried-some")
            tell(put_back)
        failpoints.hit("before-give-back")
        self.lanes.give_back(owed["told"])
        failpoints.hit("buried")
        self.store.fleet.fulfilled(worker)
        if put_back:
            logger.info("Buried a worker.", extra={"worker": worker, "tasks": put_back})

    def _burying(self, worker: str) -> AbstractContextManager[Callable[[int], None]]:
        tracing = self.process.tracing
        return nullcontext(lambda _: None) if tracing is None else tracing.burying(worker)

    def _bury(self, worker: str, shards: list[int], how: str) -> int:
        put_back = 0
        while shards:
            burials = self.store.tasks.bury(worker, shards, how)
            put_back += sum(burial.put_back for burial in burials.values())
            for letter in chain.from_iterable(burial.letters for burial in burials.values()):
                tell_crashed(*letter)
            shards = [shard for shard, burial in burials.items() if burial.left]
        return put_back

    def _is_reached(self, told: Told) -> bool:
        """Whether a worker consumes the broker that this sweeper publishes to."""
        return self.process.place.matches(Place.of(told.get("broker")))

    def _look_at_fleet(self) -> None:
        self.fleet.look()
        lift_what_is_over(self.store, self.fleet)
        if self.leases.dedicated:
            doubt, self._doubt = self._doubt, misplacement(self.store, self.process.place)
            self.misplaced = self._doubt if doubt else ""  # Seen twice: some may just be coming or going.

    def _return_strays(self) -> None:
        """Return unacknowledged messages of broker ids that no worker and no obligation names, seen so twice."""
        self._strays_read = time.monotonic()
        named = {told.get("broker_id") for told in self.store.fleet.workers().values()}
        if self.store.fleet.observe().obligations:
            return
        strays = self.lanes.broker_ids() - named
        for broker_id in strays & self._strays:
            logger.warning(
                "Returning messages of a worker that the store does not know.", extra={"broker_id": broker_id}
            )
            self.lanes.give_back({"broker_id": broker_id, "queues": sorted(self.fleet.knowledge.queues)})
        self._strays = strays

    # -- publishing ---------------------------------------------------------------------------------------------

    def _publish_due(self) -> bool:
        if self.fleet.is_older_than(FLEET_REFRESH) or self.fleet.holds.version != self.process.gate.holds.version:
            self._look_at_fleet()
        end = time.monotonic() + MOMENT
        while self.publisher.publish(self.leases.shards, self.fleet):
            if time.monotonic() >= end:
                return True
        return False


class SweeperThread(threading.Thread):
    """Sweeps from a worker process while there is no resurrector."""

    def __init__(self, process: WorkerProcess) -> None:
        super().__init__(name="relier-sweeper", daemon=True)
        self._sweeper = Sweeper(process)
        self._interval = process.settings.resurrection_check_interval
        self._stopped = threading.Event()

    def run(self) -> None:
        endless(lambda: sweep_until(self._sweeper, self._interval, self._stopped), self._stopped)()

    def let_go(self) -> None:
        """End after the current sweep, and give the leases back; returns at once."""
        self._stopped.set()

    def stop(self) -> None:
        """End after the current sweep, and give the leases back."""
        self.let_go()
        self.join(timeout=5)


def sweep_until(sweeper: Sweeper, interval: float, stopped: threading.Event, seconds: float | None = None) -> None:
    """Sweep every `interval` seconds until `stopped` is set (the leases are given back) or `seconds` are over.

    While there is more to publish than a sweep has time for, the next one follows at once.
    """
    end = None if seconds is None else time.monotonic() + seconds
    pause = interval
    while not stopped.wait(pause) and (end is None or time.monotonic() < end):
        pause = interval
        try:
            pause = 0 if sweeper.tick() else interval
        except _AWAY as error:
            logger.debug("A sweep failed; the next one goes on.", extra={"error": type(error).__name__})
        except Exception:
            logger.exception("A sweep failed; the next one goes on.")
    if stopped.is_set():
        sweeper.stop()
