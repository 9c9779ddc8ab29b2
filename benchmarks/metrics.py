"""Measure a scrape: 50 actors in 20 queues, 1,000 workers, and what they left in the store.

    python -m benchmarks.metrics [--quick] [--server embedded|redis]

Each actor has run tasks in every shard, of all lengths; each worker runs four; there are dead letters of 200 kinds, and
messages in every queue. A scrape is a request over HTTP that reads store and broker anew. Measured are its time, and
the longest that one script kept the server busy, the reckoning of burn rates included. Exit code 1 when the median
takes 50 ms or a script 5 ms.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from dramatiq import Message

from benchmarks.slow_scripts import SlowScripts
from relier import metrics
from relier.brokers.redis import RelierRedisBroker
from relier.exporter import Exporter
from relier.settings import Settings
from relier.store import Failure, Sending, Store, shard_of
from relier.store.fleet import Busy
from tests import sources
from tests.servers.redis_servers import LocalRedis

ACTORS, QUEUES, WORKERS = 50, 20, 1_000
#: The longest (s) that a scrape may take, in the median.
BOUND = 0.05
#: Of how many tasks each is dead-lettered.
ONE_DEAD_OF = 40


def queue_of(actor: int) -> str:
    return f"queue-{actor % QUEUES}"


def message(actor: int) -> Message[None]:
    return Message(queue_name=queue_of(actor), actor_name=f"actor_{actor}", args=(actor,), kwargs={}, options={})


def run_tasks(settings: Settings, tasks: int, seed: int) -> None:
    """Let tasks come to an end, each after a time of its own, on a clock that is moved."""
    store, dice = Store.from_settings(settings), random.Random(seed)
    begun = time.time_ns() // 1000
    for number in range(tasks):
        actor = number % ACTORS
        made = message(actor)
        sending = Sending(made.message_id, shard_of(made.message_id), queue_of(actor), f"actor_{actor}", b"body")
        now = begun + number * 100
        store.tasks.clock = now
        claim = store.tasks.claim("w1", sending, b"n", 0, slot_free=True)
        store.tasks.clock = now + int(10 ** dice.uniform(2.5, 8))
        if number % ONE_DEAD_OF == 0:
            reason = f"Reason{dice.randrange(4)}"
            failure = Failure(False, 0.0, True, False, reason, b"encoded", f"{reason}: no", "print")
            store.tasks.fail("w1", sending, claim.fence, failure)
        else:
            store.tasks.commit("w1", sending, claim.fence, hooks=False)
    store.close()


def populate(store: Store, broker: RelierRedisBroker, settings: Settings, tasks: int) -> None:
    queues = sorted({queue_of(actor) for actor in range(ACTORS)})
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda seed: run_tasks(settings, tasks // 4, seed), range(4)))
    for number in range(WORKERS):
        worker = f"host-{number}:{number}:{number:010x}"
        told = {"role": "worker", "host": f"host-{number}", "pid": number, "queues": queues, "threads": 8}
        store.fleet.register(worker, {**told, "state": "", "subscribed": True, "version": "1", "started_at": 1.0})
        actors = random.Random(number).sample(range(ACTORS), 4)
        store.fleet.beat(worker, busy=[Busy(queue_of(a), f"actor_{a}", 1, 1.5) for a in actors])
    for queue in queues:
        broker.declare_queue(queue)
    for actor in range(ACTORS):
        for _ in range(10):
            broker.enqueue(message(actor))


def scrape(address: tuple[str, int]) -> tuple[float, int]:
    """Return the seconds that it took, and the bytes of the page."""
    began = time.perf_counter()
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/metrics", timeout=30) as answer:
        size = len(answer.read())
    return time.perf_counter() - began, size


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer tasks and scrapes")
    parser.add_argument("--server", choices=sources.STORES, default="redis")
    options = parser.parse_args()
    tasks, scrapes = (8_000, 20) if options.quick else (80_000, 200)
    server = sources.start(options.server, private=True)
    settings = Settings(redis_url=server.url, queues=tuple(f"queue-{i}" for i in range(QUEUES)))
    store, broker = Store.from_settings(settings), RelierRedisBroker(settings=settings)
    print(f"{server.description}: {ACTORS} actors, {QUEUES} queues, {WORKERS} workers, {tasks} tasks ended", flush=True)
    populate(store, broker, settings, tasks)
    metrics.FRESH = 0.0
    exporter = Exporter(store, broker, settings, ("127.0.0.1", 0))
    slow = SlowScripts(server.client(), server.pid if isinstance(server, LocalRedis) else None)
    exporter.start()
    scrape(exporter.address)
    taken = [scrape(exporter.address) for _ in range(scrapes)]
    times = sorted(seconds * 1000 for seconds, _ in taken)
    median = statistics.median(times)
    print(
        f"  a scrape: median {median:.1f} ms, fastest {times[0]:.1f}, 95 % within {times[int(0.95 * len(times))]:.1f},"
        f" slowest {times[-1]:.1f} ms; {taken[0][1] / 1024:.0f} KiB"
    )
    kept = slow.report()
    exporter.stop()
    store.close()
    broker.close()
    server.close()
    return 0 if median < BOUND * 1000 and kept else 1


if __name__ == "__main__":
    sys.exit(main())
