"""Random faults under load, for minutes; then every task is accounted for.

    python -m benchmarks.storm [--seconds 600] [--seed N] [--broker redis|two-redises|rabbitmq] [--rate 60]

Four workers and a resurrector, each with a TCP proxy to the store and one to the broker. They are killed and frozen;
their links are cut, refused, slowed down, half-open in either direction; replies are dropped after the fact; servers
are killed and restarted, and frozen. Meanwhile tasks succeed, are retried, are delayed, and follow each other.

The faults are a function of the seed, which is printed: the same seed plans the same storm. At the end each task has
one accepted commit, nothing is stuck, counters and records agree; and each kind of fault did really happen, as its
effect shows: a process that is gone, a connection that was reset. Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.storm.account import findings
from benchmarks.storm.load import Load
from benchmarks.storm.plan import kinds, plan
from benchmarks.storm.weather import Weather
from tests import sources
from tests.conformance.topologies import RabbitmqFleet
from tests.integration.harness import Harness

BROKERS = ("redis", "two-redises", "rabbitmq")

#: Short times, so that each fault has its consequences within the storm.
SETTINGS = {"heartbeat_ttl": 3, "redis_socket_timeout": 2, "resurrection_claim_grace_period": 5}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--broker", choices=BROKERS, default="redis")
    parser.add_argument("--rate", type=float, default=60, help="enqueues a second")
    parser.add_argument("--fsync", choices=("everysec", "always"), default="everysec", help="appendfsync of Redis")
    parser.add_argument("--keep", type=Path, default=None, help="folder for logs and effects, emptied and kept")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.randrange(10**6)
    print(f"storm: --seed {seed} --seconds {args.seconds:g} --broker {args.broker}", flush=True)
    with ExitStack() as stack:
        folder = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rl-storm-")))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        wrong = storm(seed, args.seconds, args.broker, args.rate, args.fsync, folder)
    for finding in wrong:
        print(f"WRONG: {finding}")
    print("exactly one commit per task, nothing stuck" if not wrong else f"NOT as promised; replay with --seed {seed}")
    sys.exit(bool(wrong))


def storm(seed: int, seconds: float, broker_kind: str, rate: float, fsync: str, folder: Path) -> list[str]:
    """Run one storm; returns what is wrong."""
    with ExitStack() as stack:
        store = stack.enter_context(closing(sources.start("redis", {"appendfsync": fsync}, private=True)))
        broker: Any = store
        make: Callable[..., Harness] = Harness
        if broker_kind == "two-redises":
            broker = stack.enter_context(closing(sources.start("redis", {"appendfsync": fsync}, private=True)))
            make = partial(Harness, broker_url=broker.url)
        elif broker_kind == "rabbitmq":
            broker = stack.enter_context(closing(sources.start_rabbitmq(private=True)))
            make = partial(RabbitmqFleet, rabbitmq=broker, broker_url=broker.new_vhost())
        fleet = stack.enter_context(closing(make(store, folder, **SETTINGS)))
        weather = stack.enter_context(closing(Weather(fleet, store, broker)))
        return _storm(fleet, weather, seed, seconds, rate, broker is not store)


def _storm(fleet: Harness, weather: Weather, seed: int, seconds: float, rate: float, apart: bool) -> list[str]:
    faults = plan(seed, seconds, apart)
    load = Load(fleet, seed, rate)
    weather.refill()
    for each in weather.workers:
        each.process.wait_ready()
    load.start()
    began = time.monotonic()
    weather.blow(faults, seconds)
    load.stop()
    wrong = findings(fleet, load)
    print(_summary(fleet, load, weather, time.monotonic() - began))
    missing = [kind for kind in kinds(apart) if not weather.happened[kind]]
    return wrong + [f"did not happen although planned: {kind}" for kind in missing]


def _summary(fleet: Harness, load: Load, weather: Weather, seconds: float) -> str:
    count = Counter(fleet.store.counters())
    lines = [f"{seconds:.0f} s; faults that had their effect, of those tried:"]
    lines += [f"  {weather.happened[kind]:4} of {tried:4}  {kind}" for kind, tried in sorted(weather.tried.items())]
    moments = sorted(effect.mono for effect in fleet.effects())
    lull = max((later - earlier for earlier, later in itertools.pairwise(moments)), default=0.0)
    lines.append(f"longest time in which no task did anything: {lull:.1f} s")
    lines.append(
        f"{len(load.sent)} enqueued, {load.unsure} unsure; {count['accepted']} accepted,"
        f" {count['completed']} completed, {count['crashes']} runs crashed, {count['failed']} failed,"
        f" {count['replays']} hooks replayed,"
        f" {count['released']} released, {count['refused']} commits refused, {count['published']} copies published"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
