"""Collects what the store and the broker know into one sheet of samples, for metrics."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

import redis
from dramatiq import Broker
from dramatiq.errors import BrokerConnectionError

from relier import __version__
from relier.brokers.adapters import adapter_of
from relier.measures import (
    MOST,
    Counters,
    Sheet,
    consumers_of,
    measure_admission,
    measure_burns,
    measure_contents,
    measure_members,
    measure_server,
)
from relier.queues import is_internal
from relier.settings import Settings
from relier.slo import Burn, burn_rates
from relier.store import Store
from relier.store.connection import UNAVAILABLE
from relier.store.members import Members, Roll
from relier.store.running_totals import RunningTotals
from relier.store.state import Contents, contents, server_health
from relier.store.statistics import Row

logger = logging.getLogger(__name__)

#: How often (s) burn rates are reckoned, beside the scrapes: they are of whole minutes, and read many periods.
BURNS_EVERY = 60.0

_AWAY: tuple[type[Exception], ...] = (*UNAVAILABLE, BrokerConnectionError)


class Collection:
    """Reads store and broker.

    Parameters:
      store: whose tasks are told.
      broker: whose queues are told.
    """

    def __init__(self, store: Store, broker: Broker, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._adapter = adapter_of(broker)
        self._roll = Roll(store)
        self._totals = RunningTotals(store)
        self._counters = Counters()
        self._burns: list[Burn] = []

    def sheet(self) -> Sheet:
        """Return the samples of now. While the store does not answer they say so, and nothing else."""
        begun = time.perf_counter()
        sheet = Sheet()
        try:
            self._read_store(sheet)
            sheet.put("relier_up", 1)
        except UNAVAILABLE as error:
            logger.warning("The store does not answer; there are no metrics of it.", extra={"error": _line(error)})
            sheet = Sheet()
            sheet.put("relier_up", 0)
        sheet.put("relier_build_info", 1, __version__)
        sheet.put("relier_collection_seconds", time.perf_counter() - begun)
        return sheet

    def _read_store(self, sheet: Sheet) -> None:
        found, members, rows = contents(self._store), self._roll.call(), self._totals.rows()
        measure_contents(found, sheet)
        measure_members(members, sheet)
        self._counters.measure(rows, sheet)
        measure_admission(self._store.admissions.usages(), sheet)
        measure_burns(self._burns, sheet)
        try:
            measure_server(server_health(self._store), sheet)
        except redis.ResponseError as error:  # An ACL forbids INFO: the rest is known all the same.
            logger.warning("Redis does not tell how it does.", extra={"error": _line(error)})
        self._measure_queues(members, self._queues(found, members, rows), sheet)

    def _queues(self, found: Contents, members: Members, rows: Iterable[Row]) -> list[str]:
        consumed = consumers_of(members)
        others = {queue for queue, _ in found.parked} | {row.queue for row in rows} | set(members.holds.queues)
        known = dict.fromkeys((*self._settings.public_queues, *sorted(consumed), *sorted(others)))
        return [queue for queue in known if queue and not is_internal(queue) and not queue.startswith("(")][:MOST]

    def _measure_queues(self, members: Members, queues: list[str], sheet: Sheet) -> None:
        consumers = consumers_of(members)
        for queue in queues:
            sheet.put("relier_queue_consumers", consumers[queue], queue)
            sheet.put("relier_queue_paused", queue in members.holds.queues, queue)
        try:
            heads = self._adapter.heads(queues)
        except _AWAY as error:
            logger.warning("The broker does not answer; no depth is told.", extra={"error": _line(error)})
            sheet.put("relier_broker_up", 0)
            return
        sheet.put("relier_broker_up", 1)
        for queue, (depth, oldest) in heads.items():
            sheet.put("relier_queue_depth", depth, queue)
            age = 0.0 if depth == 0 else None if oldest is None else max(0.0, members.now - oldest)
            sheet.put("relier_queue_oldest_age_seconds", age, queue)

    def reckon_burns(self) -> None:
        """Reckon the burn rates that the next sheets tell. Raises what the store raises."""
        self._burns = burn_rates(self._store, self._settings)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class Burning:
    """Reckons burn rates now and then, on a thread of its own, so that no scrape waits for them.

    Parameters:
      reckon: does it.
    """

    def __init__(self, reckon: Callable[[], None]) -> None:
        self._reckon = reckon
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relier-burn-rates", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop after what is being read; wait for its end, but not for ever."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def _run(self) -> None:
        while True:
            try:
                self._reckon()
            except UNAVAILABLE:
                logger.debug("The store does not answer; burn rates stay as they were.")
            except Exception:
                logger.exception("Burn rates could not be reckoned; it goes on.")
            if self._stopped.wait(BURNS_EVERY):
                return
