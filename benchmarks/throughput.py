"""Compare Relier's throughput and `push` cost with plain Dramatiq's, alternating, on one server.

    python benchmarks/throughput.py [--tasks 10000] [--rounds 5] [--protections] [--prefetch 200]

Prints the median rates, the processor time that the worker takes for a task, and the ratios pair by pair. One worker
process, 8 threads, a no-op actor. On a busy machine the ratio of processor times says more than that of rates.

`--protections`: our messages are signed, and the actor is idempotent, of a payload version of its own, and keeps its
result. Checksums, admission, and protection against crashes are always on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PREFETCHES = {"default": None, "200": "200"}

#: What an actor with every protection that a plain function can have asks for. Timeouts are for coroutines.
PROTECTIONS: dict[str, Any] = {"idempotent": True, "schema_version": 2, "store_results": True}
SIGNING_KEYS = "bench:" + 32 * "k"


def make_broker(kind: str) -> Any:
    import dramatiq

    url = os.environ["RELIER_REDIS_URL"]
    if kind == "plain":
        from dramatiq.brokers.redis import RedisBroker

        broker: Any = RedisBroker(url=url, namespace="bench-plain")
    else:
        from relier.brokers import default_broker

        broker = default_broker()
    dramatiq.set_broker(broker)
    return broker


def declare(kind: str, seen: list[float]) -> Any:
    if kind == "plain":
        from dramatiq import actor as declare_actor
    else:
        from relier import rl_actor as declare_actor  # type: ignore[assignment]

    def noop(n: int) -> None:
        seen.append(time.perf_counter())

    return declare_actor(**(PROTECTIONS if kind == "protected" else {}))(noop)


def run_child(kind: str, tasks: int) -> dict[str, float]:
    """Enqueue, then process, in this process; returns seconds per send and tasks per second."""
    from dramatiq import Worker

    broker, seen = make_broker(kind), list[float]()
    noop = declare(kind, seen)
    send = noop.send if kind == "plain" else noop.push
    first = random.getrandbits(48)  # No task of an earlier run is a duplicate's first.
    send(first)
    start = time.perf_counter()
    for n in range(first + 1, first + 1 + tasks):
        send(n)
    sending = (time.perf_counter() - start) / tasks
    worker = Worker(broker, worker_threads=8)
    burnt = time.process_time()
    worker.start()
    while len(seen) < tasks + 1:
        time.sleep(0.02)
    burnt = time.process_time() - burnt
    worker.stop()
    # The first tenth warms up.
    warm = seen[tasks // 10 :]
    return {"send": sending, "rate": (len(warm) - 1) / (warm[-1] - warm[0]), "cpu": burnt / tasks}


def spawn(kind: str, prefetch: str | None, tasks: int, url: str) -> dict[str, float]:
    """Measure in a process of its own."""
    env = {**os.environ, "RELIER_REDIS_URL": url, "RELIER_LOG_LEVEL": "error", "RELIER_ADMISSION_LIMIT": str(10**9)}
    env.pop("dramatiq_queue_prefetch", None)
    if kind == "protected":
        env["RELIER_SIGNING_KEYS"] = SIGNING_KEYS
    if prefetch:
        env["dramatiq_queue_prefetch"] = prefetch
    command = [sys.executable, __file__, "--child", kind, "--tasks", str(tasks)]
    out = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(out.splitlines()[-1])
    return result


def compare(name: str, kind: str, rounds: int, tasks: int, url: str) -> None:
    plain, ours = [], []
    for i in range(rounds + 1):
        pair = [spawn(each, PREFETCHES[name], tasks, url) for each in ("plain", kind)]
        if i:  # The first pair warms up.
            plain.append(pair[0])
            ours.append(pair[1])
    ratios = sorted(o["rate"] / p["rate"] for p, o in zip(plain, ours, strict=True))
    extra = sorted((o["send"] - p["send"]) * 1e6 for p, o in zip(plain, ours, strict=True))
    rate = [statistics.median(r["rate"] for r in side) for side in (plain, ours)]
    cpu = [statistics.median(r["cpu"] for r in side) * 1e6 for side in (plain, ours)]
    print(
        f"prefetch {name}: plain {rate[0]:.0f}/s, {kind} {rate[1]:.0f}/s, ratio {statistics.median(ratios):.2f}"
        f" ({ratios[0]:.2f} to {ratios[-1]:.2f}); processor time {cpu[0]:.0f} and {cpu[1]:.0f} µs a task;"
        f" push costs {statistics.median(extra):+.1f} µs over send ({extra[0]:+.1f} to {extra[-1]:+.1f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", choices=("plain", "relier", "protected"))
    parser.add_argument("--protections", action="store_true")
    parser.add_argument("--prefetch", choices=tuple(PREFETCHES), action="append")
    args = parser.parse_args()
    if args.child:
        print(json.dumps(run_child(args.child, args.tasks)))
        return
    from relier.embedded import ensure_server

    with tempfile.TemporaryDirectory() as folder:
        server = ensure_server(Path(folder))
        for name in args.prefetch or PREFETCHES:
            compare(name, "protected" if args.protections else "relier", args.rounds, args.tasks, server.url)
        server.close()


if __name__ == "__main__":
    main()
