"""Show what the store keeps after many tasks have ended.

    python -m benchmarks.residue [--tasks 100000] [--workers 2] [--server embedded|redis]

Prints keys, records and bytes of store and broker before and after. Tasks that completed in their first run leave
nothing. Exit code 1 when one of them did.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests import sources
from tests.integration.harness import Harness
from tests.waiting import wait_until

BATCH = 2000


def measure(fleet: Harness) -> dict[str, int]:
    client: Any = fleet.store.client
    keys = list(client.scan_iter("*", count=1000))
    size = sum(int(client.memory_usage(key, samples=0) or 0) for key in keys)
    return {"keys": len(keys), "records": fleet.store.live()["records"], "bytes": size}


def run(fleet: Harness, tasks: int, workers: int) -> bool:
    started = fleet.workers(workers, threads=8)
    fleet.broker.enqueue_many([fleet.actors.noop.message() for _ in range(BATCH)])
    fleet.settle(BATCH, 60)  # Every shard's counters exist from now on.
    wait_until(lambda: fleet.store.live()["records"] == 0, 10, "an empty store")
    before, start = measure(fleet), time.monotonic()
    for _ in range(tasks // BATCH):
        fleet.broker.enqueue_many([fleet.actors.noop.message() for _ in range(BATCH)])
    total = BATCH + tasks // BATCH * BATCH
    wait_until(lambda: fleet.store.counters()["completed"] >= total, 600, "every completion")
    seconds = time.monotonic() - start
    fleet.settle(total, 60)
    wait_until(lambda: fleet.store.live()["records"] == 0, 10, "an empty store")
    after = measure(fleet)
    print(f"before {before}")
    print(f"after  {after}: {total - BATCH} tasks in {seconds:.0f} s, {len(started)} workers")
    return after["records"] == 0 and after["keys"] <= before["keys"] and after["bytes"] <= before["bytes"] + 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--server", choices=sources.STORES, default="embedded")
    args = parser.parse_args()
    server = sources.start(args.server, private=True)
    with tempfile.TemporaryDirectory(prefix="rl-residue-") as folder:
        fleet = Harness(server, Path(folder))
        try:
            clean = run(fleet, args.tasks, args.workers)
        finally:
            fleet.close()
            server.close()
    sys.exit(0 if clean else 1)


if __name__ == "__main__":
    main()
