"""What shall go wrong, and when: a pure function of the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: Kinds of faults of one process or its links, with their weight.
OF_A_PROCESS = {
    "worker killed": 6,
    "resurrector killed": 2,
    "process frozen": 3,
    "store link cut": 3,
    "store link refused": 2,
    "store link half-open to the server": 3,
    "store link half-open to the client": 3,
    "store link stuck": 3,
    "store link slow": 1,
    "store reply dropped": 4,
}
#: The same for a broker that is apart from the store.
OF_A_BROKER_LINK = {
    "broker link cut": 4,
    "broker link refused": 2,
    "broker link half-open to the server": 3,
    "broker link half-open to the client": 3,
}
#: Faults of a whole server.
OF_A_SERVER = {"store killed": 1, "store frozen": 1}
OF_A_BROKER = {"broker killed": 1}

#: Mean time (s) between two faults.
MEAN_PAUSE = 2.0
#: Nothing goes wrong in the first seconds, and nothing begins in the last.
CALM, LAST = 2.0, 5.0


@dataclass(frozen=True)
class Fault:
    """One fault.

    at: seconds after the start.   kind: what goes wrong.   lasts: seconds, where it has an end.
    pick: whom it hits: the n-th of those there are, counted around.
    """

    at: float
    kind: str
    lasts: float
    pick: int


def kinds(apart: bool) -> dict[str, int]:
    """Return every kind with its weight. `apart`: whether the broker is another server than the store."""
    return {**OF_A_PROCESS, **OF_A_SERVER, **({**OF_A_BROKER_LINK, **OF_A_BROKER} if apart else {})}


def plan(seed: int, seconds: float, apart: bool) -> list[Fault]:
    """Return the faults in order of time: each kind once at least, the rest as the weights have it."""
    chance = random.Random(seed)
    weights = kinds(apart)
    count = max(len(weights), round((seconds - CALM - LAST) / MEAN_PAUSE))
    chosen = [*weights, *chance.choices(list(weights), list(weights.values()), k=count - len(weights))]
    chance.shuffle(chosen)
    times = sorted(CALM + chance.random() * max(1.0, seconds - CALM - LAST) for _ in chosen)
    return [
        Fault(at, kind, _lasts(kind, chance), chance.randrange(1_000_000))
        for at, kind in zip(times, chosen, strict=True)
    ]


def _lasts(kind: str, chance: random.Random) -> float:
    """Some partitions end before anybody is declared dead, some long after."""
    if kind.endswith("killed"):
        return chance.uniform(0.2, 2.0)
    if kind == "store frozen":
        return chance.uniform(0.5, 4.0)
    return chance.choice([chance.uniform(0.2, 2.0), chance.uniform(2.0, 10.0)])
