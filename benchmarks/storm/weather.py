"""Makes the planned faults happen to a fleet, and counts those that really did, by their effect."""

from __future__ import annotations

import heapq
import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.storm.plan import Fault
from tests.faults.links import Linked, linked
from tests.faults.proxy import TO_CLIENT, TO_SERVER, Proxy
from tests.integration.harness import Harness
from tests.waiting import wait_until

#: How many workers there are; the dead are replaced at once.
WORKERS = 4
#: By how much (s) a fault is put off that cannot begin or, since nobody felt it, must not end yet.
PUT_OFF = 0.5
#: How long (s) an effect that should show at once is waited for.
PROMPTLY = 60.0


class Weather:
    """One fleet behind proxies, in a storm.

    Parameters:
      fleet: the harness.
      store, broker: the servers that may be hurt; the same one where both are one Redis.
    """

    def __init__(self, fleet: Harness, store: Any, broker: Any) -> None:
        self.fleet = fleet
        self.servers = {"store": store, "broker": broker}
        self.workers: list[Linked] = []
        self.resurrectors: list[Linked] = []
        #: How often each kind of fault was tried, and how often its effect was seen.
        self.tried: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self._ends: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._down: set[str] = set()
        self._over = False
        self._restarts: list[threading.Thread] = []
        self._busy: set[int] = set()

    def blow(self, faults: list[Fault], seconds: float) -> None:
        """Let the faults happen for `seconds`; returns when every one of them is over."""
        start = time.monotonic()
        self.refill()
        for fault in faults:
            self._pass_until(start + fault.at)
            self.refill()
            self.tried[fault.kind] += 1
            self._begin(fault)
        self._pass_until(start + seconds)
        patience = time.monotonic() + PROMPTLY
        while self._ends and time.monotonic() < patience:  # What was put off still has its turn.
            self._pass_until(self._ends[0][0])
        self.calm()

    def calm(self) -> None:
        """End every fault now."""
        self._over = True
        while self._ends:
            heapq.heappop(self._ends)[2]()
        for restart in self._restarts:
            restart.join()
        self.refill()

    def refill(self) -> None:
        """Replace the dead, as a supervisor does."""
        for group, kind, wanted in ((self.workers, "worker", WORKERS), (self.resurrectors, "resurrector", 1)):
            for each in [each for each in group if each.process.is_over]:
                self._remove(group, each)
            while len(group) < wanted:
                group.append(linked(self.fleet, kind))

    def close(self) -> None:
        for each in (*self.workers, *self.resurrectors):
            each.process.end()
            each.close()

    # -- time ---------------------------------------------------------------------------------------------------

    def _pass_until(self, moment: float) -> None:
        """Let time pass, and end what is to end meanwhile."""
        while True:
            due = self._ends[0][0] if self._ends else moment
            if (wait := min(due, moment) - time.monotonic()) > 0:
                time.sleep(wait)
            if due > moment or not self._ends:
                return
            heapq.heappop(self._ends)[2]()

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        heapq.heappush(self._ends, (time.monotonic() + seconds, next(self._numbers), function))

    # -- faults -------------------------------------------------------------------------------------------------

    def _begin(self, fault: Fault) -> None:
        what, _, how = fault.kind.partition(" ")
        if fault.kind in ("store killed", "broker killed"):
            self._kill_server(what, fault)
        elif fault.kind == "store frozen":
            self._freeze_server(fault)
        elif fault.kind in ("worker killed", "resurrector killed"):
            self._kill(self.workers if what == "worker" else self.resurrectors, fault)
        elif fault.kind == "process frozen":
            self._freeze(fault)
        else:
            self._hurt_link(what, how, fault)

    def _victim(self, group: list[Linked], fault: Fault) -> Linked | None:
        """Return whom it hits; None when nobody is well enough, and the fault is put off."""
        free = [each for each in group if id(each) not in self._busy and each.pid]
        if free:
            return free[fault.pick % len(free)]
        self._put_off(fault)
        return None

    def _put_off(self, fault: Fault) -> None:
        if not self._over:
            self._later(PUT_OFF, lambda: self._begin(fault))

    def _kill(self, group: list[Linked], fault: Fault) -> None:
        if (victim := self._victim(group, fault)) is None:
            return
        pid = victim.process.pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: _state(pid) in ("", "Z"), PROMPTLY, "the death of a process")
        self.happened[fault.kind] += 1
        self._remove(group, victim)

    def _remove(self, group: list[Linked], each: Linked) -> None:
        group.remove(each)
        each.process.end()
        each.close()
        self.fleet.processes.remove(each.process)

    def _freeze(self, fault: Fault) -> None:
        if (victim := self._victim([*self.workers, *self.resurrectors], fault)) is None:
            return
        pid = victim.process.pid
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: _state(pid) in ("T", "", "Z"), PROMPTLY, "a stopped process")
        self.happened[fault.kind] += _state(pid) == "T"
        self._busy.add(id(victim))

        def go_on() -> None:
            self._busy.discard(id(victim))
            if _state(pid) == "T":
                os.kill(pid, signal.SIGCONT)

        self._later(fault.lasts, go_on)

    def _hurt_link(self, what: str, how: str, fault: Fault) -> None:
        if (victim := self._victim([*self.workers, *self.resurrectors], fault)) is None:
            return
        proxy = victim.store if what == "store" else victim.broker
        before = proxy.seen.copy()
        begin, effect = _LINK_FAULTS[how]
        begin(proxy)
        self._busy.add(id(victim))
        latest = time.monotonic() + fault.lasts + PROMPTLY

        def heal() -> None:
            felt = proxy.seen[effect] > before[effect]
            if not felt and not self._over and time.monotonic() < latest:
                self._later(PUT_OFF, heal)
                return
            self._busy.discard(id(victim))
            self.happened[fault.kind] += felt
            proxy.heal()

        self._later(fault.lasts, heal)

    def _kill_server(self, name: str, fault: Fault) -> None:
        server = self.servers[name]
        if name in self._down:
            self._put_off(fault)
            return
        server.kill()
        self._down.add(name)
        self.happened[fault.kind] += not server.answers()

        def restart() -> None:
            server.restart()
            self._down.discard(name)

        def begin_restart() -> None:  # It may take long, and the storm goes on.
            self._restarts.append(threading.Thread(target=restart, daemon=True))
            self._restarts[-1].start()

        self._later(fault.lasts, begin_restart)

    def _freeze_server(self, fault: Fault) -> None:
        if "store" in self._down:
            self._put_off(fault)
            return
        server = self.servers["store"]
        server.stop()
        self._down.add("store")
        self.happened[fault.kind] += not server.answers()

        def go_on() -> None:
            server.cont()
            self._down.discard("store")

        self._later(fault.lasts, go_on)


#: How a link is hurt, and which count of the proxy shows that it really was.
_LINK_FAULTS: dict[str, tuple[Callable[[Proxy], object], str]] = {
    "link cut": (lambda proxy: proxy.cut(), "cut"),
    "link refused": (lambda proxy: proxy.refuse(), "refused"),
    "link half-open to the server": (lambda proxy: proxy.half_open(TO_SERVER), f"held {TO_SERVER}"),
    "link half-open to the client": (lambda proxy: proxy.half_open(TO_CLIENT), f"held {TO_CLIENT}"),
    "link stuck": (lambda proxy: proxy.half_open(TO_SERVER, new=False), f"held {TO_SERVER}"),
    "link slow": (lambda proxy: proxy.delay(0.1), "delayed"),
    "reply dropped": (lambda proxy: proxy.drop_reply(request=b"EVALSHA", times=3), "replies dropped"),
}


def _state(pid: int) -> str:
    """Return the state of a process as the kernel names it; '' when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
