"""Measure what `rl tasks list` and `rl doctor` take with many tasks in the store, and how long they block Redis.

    python -m benchmarks.listing [--tasks 200000]

Scheduled and due tasks of seven actors, on an embedded server of its own. Prints the time of each command, its start
included, and the slowest of its scripts.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dramatiq import Message

from relier.embedded import ensure_server
from relier.settings import Settings
from relier.store import Sending, Store, shard_of

BATCH = 500
COMMANDS = ("--version", "tasks list --state due --limit 20", "tasks list --limit 20", "doctor")


def fill(store: Store, tasks: int) -> None:
    for first in range(0, tasks, BATCH):
        batch = []
        for n in range(first, min(first + BATCH, tasks)):
            actor = f"actor{n % 7}"
            message = Message[None](queue_name="default", actor_name=actor, args=(n,), kwargs={}, options={})
            sending = Sending(message.message_id, shard_of(message.message_id), "default", actor, message.encode())
            batch.append((sending, 3600.0 if n % 3 else 0.0))
        store.tasks.schedule_many(batch)


def measure(store: Store, url: str, command: str) -> None:
    store.client.slowlog_reset()
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "relier_cli", *command.split()],
        env={**os.environ, "RELIER_REDIS_URL": url},
        check=True,
        capture_output=True,
    )
    took = time.perf_counter() - began
    slowest = max((entry["duration"] for entry in store.client.slowlog_get(1000)), default=0) / 1000
    print(f"rl {command}: {took:.2f} s, slowest call {slowest:.1f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=200_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = ensure_server(Path(folder))
        store = Store.from_settings(Settings(redis_url=server.url))
        fill(store, args.tasks)
        store.client.config_set("slowlog-log-slower-than", "1000")
        store.client.config_set("slowlog-max-len", "1000")
        for command in COMMANDS:
            measure(store, server.url, command)
        store.close()
        server.close()


if __name__ == "__main__":
    main()
