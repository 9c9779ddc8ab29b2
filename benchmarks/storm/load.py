"""The work that goes on in a storm: successes, retries, delays, failures, pipelines, callbacks."""

from __future__ import annotations

import random
import threading
from typing import Any

import dramatiq

from tests.integration.harness import Harness

#: Dramatiq's compositions are not typed.
_pipeline: Any = dramatiq.pipeline


class Load(threading.Thread):
    """Enqueues until stopped. What an enqueue that raised has left behind is unsure, and is run all the same.

    Parameters:
      fleet: whose actors and broker are used.
      seed: of the mixture.
      rate: enqueues a second at most.
    """

    def __init__(self, fleet: Harness, seed: int, rate: float) -> None:
        super().__init__(name="storm-load", daemon=True)
        self.fleet = fleet
        #: Tasks whose enqueue returned.
        self.sent: list[str] = []
        #: How many pipelines and callbacks follow them: a task each, or two.
        self.follow_ups = 0
        self.unsure = 0
        self._chance = random.Random(seed)
        self._pause = 1 / rate
        self._over = threading.Event()

    def run(self) -> None:
        kinds = (self._plain, self._plain, self._flaky, self._late, self._long, self._long, self._piped, self._called)
        while not self._over.wait(self._pause):
            try:
                self._chance.choice(kinds)()
            except Exception:
                self.unsure += 1

    def stop(self) -> None:
        self._over.set()
        self.join()

    def _plain(self) -> None:
        actors = self.fleet.actors
        self.sent.append(self._chance.choice([actors.quick, actors.aquick]).push(1).id)

    def _flaky(self) -> None:
        self.sent.append(self.fleet.actors.flaky.push(1).id)

    def _late(self) -> None:
        delay = self._chance.randrange(50, 3000)
        self.sent.append(self.fleet.actors.quick.send_with_options(args=(2,), delay=delay).message_id)

    def _long(self) -> None:
        actors = self.fleet.actors
        self.sent.append(self._chance.choice([actors.short, actors.ashort]).push(self._chance.random()).id)

    def _piped(self) -> None:
        actors, broker = self.fleet.actors, self.fleet.broker
        stages = _pipeline([actors.add.message(1, 2), actors.aadd.message(3), actors.told.message()], broker=broker)
        first = stages.messages[0].message_id
        stages.run()
        self.sent.append(first)
        self.follow_ups += 2

    def _called(self) -> None:
        actors = self.fleet.actors
        self.sent.append(actors.quick.send_with_options(args=(9,), on_success="told").message_id)
        self.follow_ups += 1
