"""Measure a full DLQ: 100,000 dead letters with tracebacks of 4 KB.

    python -m benchmarks.dead_letters [--letters 100000] [--server embedded|redis]

They are of 20 kinds of failure, with a payload of 300 bytes and a failed run. Measured are the commands as they are
typed, from the start of the process to its end; releases as changes of state, without a worker; and the longest that
one script kept the server busy. Exit code 1 when a command takes longer than 2 s, when fewer than 2,000 letters a
second are released, when a script takes longer than 5 ms, or when the account does not add up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dramatiq import Message

from benchmarks.slow_scripts import SlowScripts
from relier.dlq import DeadLetters, Wanted
from relier.hooks import encode_failure
from relier.settings import Settings
from relier.store import Failure, Sending, Store, shard_of
from tests import processes, sources

#: Kinds of failures, actors, queues.
KINDS, ACTORS, QUEUES = 20, 10, 3
#: The longest (s) that a command may take.
BOUND = 2.0
#: The fewest releases a second.
RELEASES = 2_000
TRACEBACK = 4_000


def failure(kind: int) -> Failure:
    error = ValueError(f"no such thing as {kind}")
    encoded = encode_failure(error, traceback="Traceback (most recent call last):\n" + "x" * TRACEBACK)
    return Failure(False, 0.0, True, False, "ValueError", encoded, f"ValueError: {error}", f"{kind:016x}")


def sending(number: int) -> Sending:
    queue, actor = f"queue-{number % QUEUES}", f"actor-{number % ACTORS}"
    message = Message[Any](queue_name=queue, actor_name=actor, args=(number, "x" * 150), kwargs={}, options={})
    return Sending(message.message_id, shard_of(message.message_id), queue, actor, message.encode())


def fill(store: Store, letters: int) -> float:
    """Let tasks fail for good, as a worker does; returns the seconds it took."""
    failures = [failure(kind) for kind in range(KINDS)]

    def die(numbers: Sequence[int]) -> None:
        for number in numbers:
            task = sending(number)
            claim = store.tasks.claim("w1", task, b"n", 0, slot_free=True)
            store.tasks.fail("w1", task, claim.fence, failures[number % KINDS])

    began = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(die, (range(i, letters, 8) for i in range(8))))
    return time.monotonic() - began


def command(folder: Path, url: str, *words: str) -> float:
    """Run `rl` as it is typed; returns how long that took. Prints the end of what it said."""
    began = time.monotonic()
    done = processes.rl(folder, "dlq", *words, redis_url=url)
    took = time.monotonic() - began
    if done.returncode:
        raise subprocess.SubprocessError(f"rl dlq {' '.join(words)}: {done.stderr}")
    print(f"  rl dlq {' '.join(words)}: {took:.2f} s   ({done.stdout.splitlines()[-1][:70]})", flush=True)
    return took


def commands(folder: Path, url: str) -> list[float]:
    """Measure what people type; each once more than is counted, for the files of the system's cache."""
    typed = (
        ("list",),
        ("list", "--actor", "actor-1", "--limit", "20"),
        ("groups",),
        ("retry-all", "--dry-run", "--queue", "queue-1", "--reason", "ValueError"),
        ("retry-all", "--dry-run"),
        ("purge", "--dry-run", "--all"),
    )
    processes.rl(folder, "dlq", "list", "--limit", "1", redis_url=url)
    return [command(folder, url, *words) for words in typed]


def exported(folder: Path, url: str) -> None:
    """Write all of them to a file, and read that again; there is no bound to that."""
    command(folder, url, "export", "-o", "letters.jsonl")
    command(folder, url, "import", "letters.jsonl")
    size = (folder / "letters.jsonl").stat().st_size
    print(f"  the file has {size / 2**20:.0f} MiB", flush=True)


def released(store: Store, letters: int) -> float:
    """Release half of the letters; returns how many a second."""
    dead = DeadLetters(store, "benchmark")
    began = time.monotonic()
    tally = dead.release_all(Wanted(), limit=letters // 2)
    took = time.monotonic() - began
    print(f"  released {tally['released']} in {took:.2f} s: {tally['released'] / took:,.0f} a second", flush=True)
    return tally["released"] / took


def purged(store: Store, letters: int) -> float:
    dead = DeadLetters(store, "benchmark")
    began = time.monotonic()
    tally = dead.purge(Wanted(), limit=letters // 4)
    took = time.monotonic() - began
    print(f"  purged {tally['purged']} in {took:.2f} s: {tally['purged'] / took:,.0f} a second", flush=True)
    return tally["purged"] / took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--letters", type=int, default=100_000)
    parser.add_argument("--server", choices=sources.STORES, default="redis")
    args = parser.parse_args()
    server = sources.start(args.server, private=True)
    try:
        with TemporaryDirectory() as folder:
            sys.exit(0 if measure(Path(folder), server, args.letters) else 1)
    finally:
        server.close()


def measure(folder: Path, server: Any, letters: int) -> bool:
    store = Store.from_settings(Settings(redis_url=server.url))
    store.fleet.register("w1", {"role": "worker", "host": "here", "pid": 1, "queues": ["queue-0"]})
    took = fill(store, letters)
    memory: Any = store.client.info("memory")
    print(
        f"{letters} dead letters, made in {took:.0f} s; {memory['used_memory'] / letters:,.0f} bytes each", flush=True
    )
    slow = SlowScripts(store.client, getattr(server, "pid", None))
    times = commands(folder, server.url)
    exported(folder, server.url)
    rate = released(store, letters)
    purged(store, letters)
    adds_up = processes.rl(folder, "audit", redis_url=server.url).returncode == 0
    quick = slow.report()
    print(f"  the account {'adds' if adds_up else 'does not add'} up")
    store.close()
    return quick and adds_up and max(times) <= BOUND and rate >= RELEASES


if __name__ == "__main__":
    main()
