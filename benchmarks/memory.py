"""Measure what a task costs in the store's memory, beside its message, on an embedded server.

    python benchmarks/memory.py [--tasks 20000]

Prints bytes of used_memory per task in each state.
"""

from __future__ import annotations

import argparse
import secrets
import tempfile
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from dramatiq import Message

from relier.embedded import ensure_server
from relier.settings import Settings
from relier.store import Failure, Sending, Settled, Store, shard_of


def sendings(count: int) -> list[Sending]:
    """Describe tasks of one small actor; each with a real message, since its body is what is kept."""
    made = []
    for n in range(count):
        task_id = str(uuid.uuid4())
        message: Message[None] = Message("default", "resize", (f"picture-{n}.jpg",), {}, {}, message_id=task_id)
        made.append(Sending(task_id, shard_of(task_id), "default", "resize", message.encode()))
    return made


class Bench:
    """One store, and how its memory grows."""

    def __init__(self, store: Store, tasks: int) -> None:
        self.store = store
        self.tasks = sendings(tasks)
        self.worker = "host:4711:0a1b2c3d"

    def memory(self) -> int:
        return int(self.store.client.info("memory")["used_memory"])

    def measure(self, name: str, step: Callable[[], None], bodies: bool) -> None:
        """Print what each task costs after `step`, on an empty store."""
        self.store.client.execute_command("FLUSHALL", "SYNC")
        before = self.memory()
        step()
        per_task = (self.memory() - before) / len(self.tasks)
        body = sum(len(s.body) for s in self.tasks) / len(self.tasks) if bodies else 0
        print(f"{name:24} {per_task - body:5.0f} bytes beside the message's {body:.0f}")

    def claimed(self) -> Sequence[tuple[Sending, int]]:
        tasks = self.store.tasks
        nonce = secrets.token_bytes(8)
        return [(s, tasks.claim(self.worker, s, nonce, 0, slot_free=True).fence) for s in self.tasks]

    def run(self) -> None:
        self.claimed()

    def schedule(self) -> None:
        for i in range(0, len(self.tasks), 1000):
            self.store.tasks.schedule_many((s, 3600.0) for s in self.tasks[i : i + 1000])

    def end(self) -> None:
        """Complete every task; nobody saw the broker's copy go, so the ids are remembered."""
        for sending, fence in self.claimed():
            self.store.tasks.commit(self.worker, sending, fence, hooks=False)
            self.store.tasks.settle([Settled(sending.task_id, sending.shard, fence, False)])

    def forget(self) -> None:
        """Complete every task, with confirmed acknowledgements."""
        for sending, fence in self.claimed():
            self.store.tasks.commit(self.worker, sending, fence, hooks=False)
            self.store.tasks.settle([Settled(sending.task_id, sending.shard, fence, True)])

    def die(self) -> None:
        failure = Failure(False, 0.0, True, False, "ValueError", b"", "ValueError: no such picture")
        for sending, fence in self.claimed():
            self.store.tasks.fail(self.worker, sending, fence, failure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = ensure_server(Path(folder))
        bench = Bench(Store.from_settings(Settings(redis_url=server.url)), args.tasks)
        bench.measure("running", bench.run, bodies=True)
        bench.measure("delayed or retried", bench.schedule, bodies=True)
        bench.measure("dead letter, no trace", bench.die, bodies=True)
        bench.measure("ended, remembered", bench.end, bodies=False)
        bench.measure("ended, forgotten", bench.forget, bodies=False)
        bench.store.close()
        server.close()


if __name__ == "__main__":
    main()
