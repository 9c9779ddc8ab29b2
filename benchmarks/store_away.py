"""Measure how long pushes through RabbitMQ are delayed when the store goes away.

    python -m benchmarks.store_away [--pushes 300]

The store refuses (killed), hangs (SIGSTOP), or lets nothing through (a listener that never answers, from the first push
on). Prints the slowest push of each, and ends with 1 when one took 100 ms more than the median before.
"""

from __future__ import annotations

import argparse
import logging
import socket
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing

from relier import rl_actor
from relier.brokers import default_broker
from relier.settings import Settings
from tests import sources

#: Most that a push may be delayed (s).
ALLOWED = 0.1


def slowest(push: Callable[[int], object], pushes: int) -> list[float]:
    """Return how long each push took (s), a few of them in every sub-bucket of the window."""
    took = []
    for n in range(pushes):
        start = time.monotonic()
        push(n)
        took.append(time.monotonic() - start)
        time.sleep(0.005)
    return took


def pushing(redis_url: str, broker_url: str) -> Callable[[int], object]:
    def work(n: int) -> None: ...

    broker = default_broker(Settings(redis_url=redis_url, broker_url=broker_url, admission_limit=10**9))
    actor = rl_actor(broker=broker)(work)
    broker.publish_many([actor.message(0)])  # type: ignore[attr-defined]  # Not admitted: RabbitMQ is connected now.
    return actor.push


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pushes", type=int, default=300, help="while the store is away, each way")
    pushes: int = parser.parse_args().pushes
    logging.disable(logging.CRITICAL)
    worst = 0.0
    rabbitmq, store = sources.start_rabbitmq(private=True), sources.start("redis", private=True)
    with closing(rabbitmq), closing(store), socket.create_server(("127.0.0.1", 0)) as listener:
        hole = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        warm = pushing(store.url, rabbitmq.url)
        usual = statistics.median(slowest(warm, 100))
        print(f"with the store: {usual * 1e3:.1f} ms (median)")

        def measure(how: str, push: Callable[[int], object]) -> None:
            nonlocal worst
            took = slowest(push, pushes)
            worst = max(worst, max(took) - usual)
            print(f"  {how:14} {max(took) * 1e3:6.1f} ms at most, {statistics.median(took) * 1e3:.1f} ms (median)")

        store.stop()
        measure("hangs", warm)
        store.cont()
        time.sleep(1.5)
        slowest(warm, 50)
        store.kill()
        measure("refuses", warm)
        measure("black hole", pushing(hole, rabbitmq.url))
    print(f"a push is delayed by {worst * 1e3:.1f} ms at most (allowed: {ALLOWED * 1e3:.0f})")
    sys.exit(worst > ALLOWED)


if __name__ == "__main__":
    main()
