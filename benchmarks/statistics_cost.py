"""What the statistics in the store cost: throughput with them against the same scripts without, pair by pair.

    python benchmarks/statistics_cost.py [--tasks 10000] [--rounds 7] [--actors 1]

Both sides are this Relier at a prefetch of 200: one worker process, 8 threads, no-op actors. The one without loads its
scripts with a `note` that returns at once. Prints the ratio of rates, and what a task costs the server and the worker
in processor time. Then how long the server is busy with the notes that end a minute, and how much memory they keep.
"""

from __future__ import annotations

import argparse
import hashlib
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

SIDES = ("without", "with")


def without_notes() -> None:
    """Load every script with a `note` that does nothing."""
    from relier.store import scripts

    head = "local function note(rec, ...)\n"
    made = scripts.Script

    def silent(name: str, source: str, _: str) -> scripts.Script:
        source = source.replace(head, f"{head}  if true then return end\n")
        return made(name, source, hashlib.sha1(source.encode()).hexdigest())

    scripts.Script = silent  # type: ignore[assignment, misc]
    scripts.script.cache_clear()
    assert head + "  if true" in scripts.script("claim").source


def run_child(side: str, tasks: int, actors: int) -> dict[str, float]:
    """Enqueue, then process, in this process; returns tasks per second and processor seconds a task."""
    if side == "without":
        without_notes()
    import dramatiq
    import redis

    from relier import rl_actor
    from relier.brokers import default_broker

    broker, seen = default_broker(), list[float]()
    dramatiq.set_broker(broker)

    def noop(n: int) -> None:
        seen.append(time.perf_counter())

    noops = [rl_actor(actor_name=f"noop{i}")(noop) for i in range(actors)]
    for n in range(tasks):
        noops[n % actors].push(n)
    server = redis.Redis.from_url(os.environ["RELIER_REDIS_URL"])
    worker = dramatiq.Worker(broker, worker_threads=8)
    burnt, served = time.process_time(), _server_time(server)
    worker.start()
    while len(seen) < tasks:
        time.sleep(0.02)
    burnt, served = time.process_time() - burnt, _server_time(server) - served
    worker.stop()
    warm = seen[tasks // 10 :]
    return {"rate": (len(warm) - 1) / (warm[-1] - warm[0]), "worker": burnt / tasks, "server": served / tasks}


def _server_time(server: Any) -> float:
    used = server.info("cpu")
    return float(used["used_cpu_user"] + used["used_cpu_sys"])


def spawn(side: str, tasks: int, actors: int, url: str) -> dict[str, float]:
    env = {**os.environ, "RELIER_REDIS_URL": url, "RELIER_LOG_LEVEL": "error", "RELIER_ADMISSION_LIMIT": str(10**9)}
    env |= {"dramatiq_queue_prefetch": "200", "RELIER_NAMESPACE": f"bench-{side}-{random.getrandbits(32)}"}
    command = [sys.executable, __file__, "--child", side, "--tasks", str(tasks), "--actors", str(actors)]
    out = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(out.splitlines()[-1])
    return result


def compare(tasks: int, rounds: int, actors: int, url: str) -> None:
    pairs = []
    for i in range(rounds + 1):
        order = SIDES if i % 2 else SIDES[::-1]
        pair = {side: spawn(side, tasks, actors, url) for side in order}
        if i:  # The first pair warms up.
            pairs.append(pair)
    ratios = sorted(pair["with"]["rate"] / pair["without"]["rate"] for pair in pairs)
    middle = {s: {k: statistics.median(p[s][k] for p in pairs) for k in ("rate", "server", "worker")} for s in SIDES}
    print(
        f"throughput with statistics {statistics.median(ratios):.3f} of that without"
        f" ({ratios[0]:.3f} to {ratios[-1]:.3f}; {rounds} pairs, {actors} actors)"
    )
    for side, found in middle.items():
        print(
            f"  {side:8}{found['rate']:6.0f} tasks/s; {found['server'] * 1e6:5.1f} µs of the server"
            f" and {found['worker'] * 1e6:5.1f} µs of the worker a task"
        )


def measure_notes(client: Any) -> None:
    """Print how long one note takes that ends its entry's minute, and one that does not: the best of seven runs."""
    from relier.store.scripts import script

    head = script("commit").source.partition("local now = now_us()")[0]
    source = f"""{head}
      local rec = {{ [QUEUE] = 'default', [ACTOR] = 'shop.orders.actor' }}
      for i = 1, 1000 do
        clock = 1763600000000000 + i * tonumber(ARGV[2])
        note(rec, 'accepted', 1, observed(WAITS, (i % 7) * 50000))
      end"""
    for what, step in (("in the same minute", 0), ("that ends a minute", 60_000_000)):
        best = 1.0
        for _ in range(7):
            client.flushall()
            start = time.perf_counter()
            client.eval(source, 8, *(f"rl:bench:{{00}}:{name}" for name in "abcdefgh"), "1", step)
            best = min(best, time.perf_counter() - start)
        print(f"a note {what} keeps the server busy for {best * 1e3:.1f} µs")


def measure_memory(client: Any, actors: int, tasks: int) -> None:
    """Print what actors keep that run so many tasks a minute in each shard, for as long as anything is kept."""
    from relier.store import Sending, Store

    client.flushall()
    store, chance, minutes = Store(client, "bench"), random.Random(1), 3
    store.tasks.clock = 1_763_600_040_000_000
    for _ in range(minutes):
        for n in range(actors * tasks):
            made = store.tasks.clock / 1e6 - chance.expovariate(1 / 0.2)
            task = Sending(
                f"{store.tasks.clock}.{n}", 0, "default", f"shop.orders.actor_{n % actors}", b"", created=made
            )
            claim = store.tasks.claim("w:1:a", task, b"n", 0, slot_free=True)
            store.tasks.clock += int(chance.expovariate(1 / 0.05) * 1e6 / actors)
            store.tasks.commit("w:1:a", task, claim.fence, hooks=False)
        store.tasks.clock = (store.tasks.clock // 60_000_000 + 1) * 60_000_000
    sizes = [[client.memory_usage(key, samples=0) for key in client.keys(f"rl:bench:*:st:{p}:*")] for p in "mhd"]
    kept = 64 * sum(n * sum(found) / len(found) for n, found in zip((360, 73, 32), sizes, strict=True))
    print(f"{actors} actors with {tasks} tasks a minute and shard keep {kept / actors / 1e6:.1f} MB each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--child", choices=SIDES)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(run_child(args.child, args.tasks, args.actors)))
        return
    import redis

    from relier.embedded import ensure_server

    with tempfile.TemporaryDirectory() as folder:
        server = ensure_server(Path(folder))
        compare(args.tasks, args.rounds, args.actors, server.url)
        client = redis.Redis.from_url(server.url)
        measure_notes(client)
        for actors, tasks in ((1, 3), (10, 3), (50, 3), (10, 100)):
            measure_memory(client, actors, tasks)
        server.close()


if __name__ == "__main__":
    main()
