"""Actors whose tasks die, and those that are told."""

from __future__ import annotations

import os
from typing import Any

from dramatiq import Broker

from relier import rl_actor
from tests.integration.actors import note


class DeadActors:
    """Those on one broker."""

    def __init__(self, broker: Broker) -> None:
        self.tell_dead: Any = rl_actor(tell_dead, broker=broker, queue="high_priority")
        self.deaf: Any = rl_actor(deaf, broker=broker)
        self.doomed: Any = rl_actor(doomed, broker=broker, on_dead=self.tell_dead)
        self.unheard: Any = rl_actor(unheard, broker=broker, on_dead="deaf")
        self.fragile: Any = rl_actor(fragile, broker=broker, on_crash="dead", on_dead="tell_dead")


def tell_dead(record: dict[str, Any]) -> None:
    note("told dead", record)


def deaf(record: dict[str, Any]) -> None:
    note("told dead", record)
    raise TypeError("nobody is told of that")


def doomed(n: int) -> None:
    note("ran", n)
    raise TypeError("doomed")


def unheard(n: int) -> None:
    doomed(n)


def fragile() -> None:
    note("began")
    os.abort()
