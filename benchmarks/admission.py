"""Hammer one limit from many processes, some of which are killed, and look at when tasks were admitted.

    python -m benchmarks.admission [--seconds 30] [--producers 8] [--kills 20] [--broker redis|rabbitmq]

Each producer pushes as fast as it can, and after a rejection a millisecond later again. Every admitted task asks the
store for its time, in a hook between the admission and the publish; so no client's clock is compared. On a busy machine
that may be late: how long the push took until then says by how much at most, and only tasks that were admitted in an
interval for certain are counted in it. Ends with 1 when an interval as long as the window has more of them than the
limit, or, without kills, when less than 95 % are used.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from relier.settings import Settings
from tests import guard, sources
from tests.servers import RedisServer
from tests.waiting import wait_until

TIMES, READY, GO = "hammer", "ready", "go"
#: The least part of the permits that must be used without kills.
LEAST_USED = 0.95


def produce(patience: float = 0.0) -> None:
    """Push without end; with patience (s), a slow store is not taken for one that is away."""
    import dramatiq

    from relier import AdmissionRejectedError, rl_actor
    from relier.brokers import default_broker
    from relier.store.client import connect

    if patience:
        from relier import admission

        admission.PATIENCE = admission.PATIENCE_SHARED = patience
    broker = default_broker()
    dramatiq.set_broker(broker)
    client = connect(Settings())
    began = 0.0

    class Noting(dramatiq.Middleware):
        def before_enqueue(self, *_: Any) -> None:
            seconds, micros = client.time()
            client.rpush(TIMES, f"{seconds}.{micros:06} {time.monotonic() - began:.6f}")

    broker.add_middleware(Noting())

    @rl_actor
    def hammered(n: int) -> None: ...

    client.incr(READY)
    while not client.exists(GO):
        time.sleep(0.01)
    n = 0
    while True:
        began = time.monotonic()
        try:
            hammered.push(n)
            n += 1
        except AdmissionRejectedError:
            time.sleep(0.001)


class Noted(NamedTuple):
    """When a task was admitted."""

    at: float  #: by the store's clock (s), at the latest
    earliest: float


class Hammer:
    """Producers of one limit.

    Parameters:
      folder: for their output.
      settings: theirs, by field name.
      patience: see `produce`.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], patience: float = 0.0) -> None:
        self._folder = folder
        self._command = [sys.executable, "-c", f"from benchmarks.admission import produce; produce({patience})"]
        self._environ = {f"RELIER_{name.upper()}": str(value) for name, value in settings.items()}
        self._producers: list[subprocess.Popen[bytes]] = []
        self.started = 0

    def start(self) -> None:
        """Start one more producer."""
        self.started += 1
        with (self._folder / f"producer-{self.started}").open("wb") as out:
            producer = subprocess.Popen(
                self._command,
                env={**os.environ, **self._environ},
                stdout=out,
                stderr=out,
            )
        guard.watch(producer.pid)
        self._producers.append(producer)

    def go(self, store: RedisServer) -> None:
        """Let them push, once all are ready."""
        with store.client() as client:
            wait_until(lambda: int(client.get(READY) or 0) >= self.started, 120, "the producers")
            client.set(GO, 1)

    def kill(self, producer: subprocess.Popen[bytes] | None = None) -> None:
        """Kill a producer, any of them."""
        victim = producer or random.choice(self._producers)
        self._producers.remove(victim)
        victim.kill()
        victim.wait()
        guard.forget(victim.pid)

    def end(self) -> str:
        """Kill all; returns what they printed."""
        for producer in list(self._producers):
            self.kill(producer)
        return "".join(path.read_text() for path in sorted(self._folder.glob("producer-*")))


def most_in_a_window(tasks: list[Noted], window: float) -> int:
    """Return the largest number of tasks that were certainly admitted in an interval as long as the window."""
    most = 0
    for start in (task.earliest for task in tasks):
        most = max(most, sum(task.earliest >= start and task.at <= start + window for task in tasks))
    return most


def used(times: Sequence[float], limit: int, window: float) -> float:
    """Return which part of the permits was used: how long it took, on average, until as many again were admitted."""
    periods = [later - earlier for earlier, later in zip(times, times[limit:], strict=False)]
    return window * len(periods) / sum(periods) if periods else 0.0


def noted(url: str) -> list[Noted]:
    """Return what was noted, in order."""
    from relier.store.client import connect

    with connect(Settings(redis_url=url)) as client:
        pairs = [line.split() for line in client.lrange(TIMES, 0, -1)]
    return sorted(Noted(float(at), float(at) - float(lateness)) for at, lateness in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--producers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=0, help="producers that are killed, and replaced")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--window", type=float, default=2.0)
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    args = parser.parse_args()
    store = sources.start("redis", private=True)
    rabbitmq = sources.start_rabbitmq(private=True) if args.broker == "rabbitmq" else None
    settings = {"redis_url": store.url, "admission_limit": args.limit, "admission_window": args.window}
    if rabbitmq is not None:
        settings["broker_url"] = rabbitmq.url
    try:
        with tempfile.TemporaryDirectory() as folder:
            hammer = Hammer(Path(folder), settings)
            for _ in range(args.producers):
                hammer.start()
            hammer.go(store)
            for _ in range(args.kills or 1):
                time.sleep(args.seconds / (args.kills or 1))
                if args.kills:
                    hammer.kill()
                    hammer.start()
            told = hammer.end()
        times = noted(store.url)
    finally:
        for server in (store, rabbitmq):
            if server is not None:
                server.close()
    sys.exit(judge(times, told, args))


def judge(tasks: list[Noted], told: str, args: argparse.Namespace) -> int:
    """Print what was seen; returns the exit code."""
    times = [task.at for task in tasks]
    most, part = most_in_a_window(tasks, args.window), used(times, args.limit, args.window)
    gap = max((later - earlier for earlier, later in pairwise(times)), default=0.0)
    late = max((task.at - task.earliest for task in tasks), default=0.0)
    print(f"{args.producers} producers on {args.broker}, {args.kills} killed, limit {args.limit} in {args.window:g} s:")
    print(f"  admitted {len(times)} in {times[-1] - times[0]:.1f} s; longest pause {gap:.2f} s")
    print(f"  noted {late * 1e3:.0f} ms late at most")
    print(f"  most in {args.window:g} s: {most} (limit {args.limit})")
    print(f"  used: {part:.1%} of the permits")
    failed_open = told.count("failing open")
    print(f"  failed open: {failed_open} processes")
    return int(most > args.limit or (not args.kills and part < LEAST_USED))


if __name__ == "__main__":
    main()
