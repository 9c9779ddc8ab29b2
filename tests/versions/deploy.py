"""A rolling deploy from release 1 to release 2, and back, under load and kills; and an account of every order."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.harness import Effect, Harness, Process
from tests.versions.environments import APPLICATION, Release
from tests.versions.orders import SENT_VARIABLE, expected

_SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "longest": 1.0}
_PRODUCE = "import shop; from tests.versions.orders import produce; produce(shop.order, shop.RELEASE, {})"


@dataclass
class RollingDeploy:
    """One fleet whose workers are replaced one by one, while producers of both releases place orders.

    Parameters:
      fleet: without processes yet.
      old, new: the releases.
      workers: how many there are at any time.
      kills: SIGKILLs, spread over the deploy; who is killed is replaced by its own release.
      rounds: how often the deploy is rolled back and done again.
      pause: seconds between two orders of a producer.
    """

    fleet: Harness
    old: Release
    new: Release
    workers: int = 3
    kills: int = 6
    rounds: int = 1
    pause: float = 0.02
    chance: random.Random = field(default_factory=lambda: random.Random(4))
    #: Running workers, each with its release.
    running: list[tuple[Release, Process]] = field(default_factory=list)
    killed: int = 0
    replaced: int = 0

    @property
    def sent_path(self) -> Path:
        return self.fleet.folder / "sent"

    def run(self) -> dict[str, int]:
        """Deploy; returns the store's counters. Raises `AssertionError` when anything is wrong."""
        self.fleet.environ[SENT_VARIABLE] = str(self.sent_path)
        self.sent_path.touch()
        for _ in range(self.workers):
            self._start(self.old)
        self._wait_ready()
        producers = [self._produce(release) for release in (self.old, self.new)]  # The new one is early.
        self.fleet.wait(lambda: {order["release"] for order in self.sent()} == {1, 2}, 60, "orders of both")
        releases = [self.new, *(self.old, self.new) * self.rounds]
        for turn, release in enumerate(releases):
            self._roll(release, self.kills * (turn + 1) // len(releases) - self.killed)
        self.sent_path.with_name("stop").touch()
        for producer in producers:
            producer.popen.wait(300)
            assert producer.popen.returncode == 0, producer.text()
        counters = self.fleet.settle(self.tasks(), timeout=300)
        self._check(counters)
        return counters

    # -- deploying ------------------------------------------------------------------------------------------------

    def _start(self, release: Release) -> None:
        worker = self.fleet.worker(python=release.python, actors=APPLICATION, graceful_shutdown_timeout=5)
        self.running.append((release, worker))

    def _produce(self, release: Release) -> Process:
        return self.fleet.script(_PRODUCE.format(self.pause), python=release.python)

    def _wait_ready(self) -> None:
        for _, worker in self.running:
            worker.wait_ready()

    def _roll(self, release: Release, kills: int) -> None:
        """Replace every worker by one of `release`; kill some on the way."""
        for place in range(self.workers):
            for _ in range(kills * (place + 1) // self.workers - kills * place // self.workers):
                self._kill_one()
            _, leaving = self.running.pop(0)
            self._start(release)
            leaving.popen.terminate()
            self._wait_ready()
            self.replaced += 1
            leaving.popen.wait(60)

    def _kill_one(self) -> None:
        """Kill a worker when it runs something, if that is soon; start another of its release."""
        place = self.chance.randrange(len(self.running))
        release, victim = self.running.pop(place)
        time.sleep(self.chance.uniform(0, 0.2))
        victim.kill()
        self.killed += 1
        victim.end()
        self._start(release)
        self._wait_ready()

    # -- accounting -----------------------------------------------------------------------------------------------

    def sent(self) -> list[dict[str, Any]]:
        """Return what the producers noted of each accepted order, but for a line that is still being written."""
        return [json.loads(line) for line in self.sent_path.read_text(encoding="utf-8").split("\n")[:-1]]

    def tasks(self) -> int:
        return sum(order["tasks"] for order in self.sent())

    def _check(self, counters: dict[str, int]) -> None:
        orders = self.sent()
        assert counters["completed"] == counters["accepted"] == self.tasks(), self.fleet.report()
        assert counters.get("dead", 0) == counters.get("discarded", 0) == 0, self.fleet.report()
        shipped, mailed = self._noted("shipped"), self._noted("mailed")
        assert set(shipped) == {order["order"] for order in orders}
        assert set(mailed) == {order["order"] for order in orders if order["tasks"] == 2}

    def _noted(self, what: str) -> Counter[int]:
        """Return how often each order was carried out; each time with what its sender meant."""
        effects: list[Effect] = self.fleet.effects(what)
        for effect in effects:
            release, detail = effect.detail["release"], {**effect.detail}
            detail.pop("release")
            assert detail == expected(what, detail["order"]), f"release {release} ran {effect}"
        return Counter(effect.detail["order"] for effect in effects)

    def bounces(self, counters: dict[str, int]) -> str:
        """Tell how often tasks were declined."""
        events = [event for event in self.fleet.store.events(100_000) if event["event"] == "declined"]
        spread = Counter(Counter(event["task"] for event in events).values())
        return f"declined {counters.get('declined', 0)} times; tasks by how often: {dict(sorted(spread.items()))}"

    def waits(self) -> list[str]:
        """Tell how long it took from an order to its shipping, for the senders of each release."""
        shipped: dict[int, float] = {}
        for effect in self.fleet.effects("shipped"):
            shipped.setdefault(effect.detail["order"], effect.at)
        return [self._wait(release, shipped) for release in (1, 2)]

    def _wait(self, release: int, shipped: dict[int, float]) -> str:
        orders = [order for order in self.sent() if order["release"] == release and order["order"] in shipped]
        took = sorted(shipped[order["order"]] - order["at"] for order in orders)
        part = ", ".join(f"{name} {took[int(share * (len(took) - 1))]:.2f} s" for name, share in _SHARES.items())
        return f"orders of release {release}: {part}"
