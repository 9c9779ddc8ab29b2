"""Compare what `push` costs with Dramatiq's `send` on its own broker, alternating in one process.

    python -m benchmarks.push [--broker redis|rabbitmq] [--pushes 6000] [--signed] [--profile]

Dramatiq's RabbitMQ broker has confirms on. Prints medians of the differences between neighbouring batches, in µs of
time and of processor time of this process, and those of single calls. Ends with 1 when the median time exceeds 25 µs.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import dramatiq

from relier import rl_actor
from relier.brokers import default_broker
from relier.settings import Settings
from tests import sources
from tests.servers import RedisServer

#: Calls in a batch: short, so that both sides of a pair see the same machine.
BATCH = 20
#: What a push may cost more than a send (µs).
ALLOWED = 25.0

Send = Callable[[int], Any]


def senders(kind: str, stack: ExitStack, signed: bool) -> tuple[Send, Send]:
    """Return Dramatiq's `send` and Relier's `push`, on servers of this run alone."""
    store: RedisServer = sources.start("redis", private=True)
    stack.callback(store.close)
    options: dict[str, Any] = {"signing_keys": "k:" + "s" * 32} if signed else {}
    if kind == "rabbitmq":
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        rabbitmq = sources.start_rabbitmq(private=True)
        stack.callback(rabbitmq.close)
        plain: Any = RabbitmqBroker(url=rabbitmq.url, confirm_delivery=True)  # type: ignore[no-untyped-call]
        options |= {"broker_url": rabbitmq.url, "namespace": "ours"}
    else:
        from dramatiq.brokers.redis import RedisBroker

        plain = RedisBroker(url=store.url, namespace="plain")  # type: ignore[no-untyped-call]
    ours = default_broker(Settings(redis_url=store.url, admission_limit=10**9, **options))
    stack.callback(ours.close)

    def work(n: int) -> None: ...

    return dramatiq.actor(broker=plain)(work).send, rl_actor(broker=ours)(work).push


def timed(send: Send, calls: int) -> tuple[float, float]:
    """Return µs of time and of processor time for each call."""
    start, processor = time.perf_counter(), time.process_time()
    for n in range(calls):
        send(n)
    return (time.perf_counter() - start) / calls * 1e6, (time.process_time() - processor) / calls * 1e6


def compare(send: Send, push: Send, pushes: int) -> float:
    """Print what pushes cost; returns the median of the differences in time."""
    pairs = []
    for i in range(pushes // BATCH):
        first, second = (send, push) if i % 2 else (push, send)
        measured = {first: timed(first, BATCH), second: timed(second, BATCH)}
        pairs.append((measured[send], measured[push]))
    print(f"{len(pairs)} pairs of {BATCH} calls, Dramatiq's send and Relier's push:")
    extra = []
    for what, i in (("time", 0), ("processor time", 1)):
        plain, ours = (statistics.median(pair[side][i] for pair in pairs) for side in (0, 1))
        differences = [pair[1][i] - pair[0][i] for pair in pairs]
        low, middle, high = statistics.quantiles(differences, n=4)
        extra.append(middle)
        print(f"  {what:15} {plain:7.1f} µs {ours:7.1f} µs   {middle:+6.1f} µs (quartiles {low:+.1f} to {high:+.1f})")
    return extra[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="redis")
    parser.add_argument("--pushes", type=int, default=6000, help="calls of each kind")
    parser.add_argument("--signed", action="store_true", help="sign each message")
    parser.add_argument("--profile", action="store_true", help="show where pushes spend their time")
    args = parser.parse_args()
    with ExitStack() as stack:
        send, push = senders(args.broker, stack, args.signed)
        timed(send, 300)
        timed(push, 300)
        if args.profile:
            with cProfile.Profile() as profile:
                timed(push, args.pushes)
            pstats.Stats(profile).sort_stats("tottime").print_stats(45)
            return
        extra = compare(send, push, args.pushes)
    print(f"a push costs {extra:+.1f} µs over send (allowed: {ALLOWED:g})")
    sys.exit(extra > ALLOWED)


if __name__ == "__main__":
    main()
