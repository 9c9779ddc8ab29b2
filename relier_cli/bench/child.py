"""Enqueues tasks that do nothing, then runs them, in this process alone: `python -m relier_cli.bench.child TASKS`.

Prints seconds a task for enqueueing, and tasks a second for running, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import dramatiq
from dramatiq import Worker

from relier import rl_actor
from relier.settings import get_settings
from relier_cli.bench.ground import KIND, TIE, broker_of
from relier_cli.demo import tie

#: Threads of the worker: as many as Dramatiq has by default.
THREADS = 8


def measure(kind: str, tasks: int) -> dict[str, float]:
    """Enqueue, then run; returns what both took."""
    broker, ran = broker_of(kind, get_settings()), list[float]()
    dramatiq.set_broker(broker)

    def nothing(n: int) -> None:
        ran.append(time.perf_counter())

    declared: Any = dramatiq.actor(nothing) if kind == "plain" else rl_actor(nothing)
    send = declared.send if kind == "plain" else declared.push
    send(0)  # Connects.
    began = time.perf_counter()
    for n in range(tasks):
        send(n)
    enqueueing = (time.perf_counter() - began) / tasks
    worker = Worker(broker, worker_threads=THREADS)
    worker.start()
    while len(ran) < tasks + 1:
        time.sleep(0.01)
    worker.stop()
    warm = sorted(ran)[tasks // 10 :]  # The first tenth warms up.
    return {"enqueue": 1 / enqueueing, "throughput": (len(warm) - 1) / (warm[-1] - warm[0])}


if __name__ == "__main__":
    tie.follow(os.environ[TIE])
    print(json.dumps(measure(os.environ[KIND], int(sys.argv[1]))))
