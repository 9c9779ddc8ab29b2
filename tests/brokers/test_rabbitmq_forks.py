"""A forked child keeps nothing of its parent's connections open."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from tests.brokers.bench import Bench
from tests.waiting import wait_until

_PARENT = """
import os, sys, time
import dramatiq
from relier.brokers.rabbitmq import RelierRabbitmqBroker
from relier.settings import Settings

def live():
    while os.path.exists(f"/proc/{sys.argv[3]}"):
        time.sleep(0.1)
    os._exit(0)

broker = RelierRabbitmqBroker(settings=Settings(redis_url=sys.argv[1], broker_url=sys.argv[2]))
dramatiq.actor(broker=broker, actor_name="quick")(print)
broker.ensure_queue("default")
consumer = broker.consume("default", prefetch=2, timeout=100)
while next(consumer) is None:
    pass
child = os.fork()
if child == 0:
    live()
print(child, flush=True)
live()
"""


def test_a_dead_workers_copies_come_back_although_its_child_lives(bench: Bench, redis_url: str, vhost: str) -> None:
    bench.quick.send(1)
    command = [sys.executable, "-c", _PARENT, redis_url, vhost, str(os.getpid())]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    child = 0
    try:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert bench.queue().unacked == 1
        parent.kill()
        parent.wait()

        bench.wait(lambda: bench.queue().ready == 1, "the copy to be back")
        os.kill(child, 0)  # It lives.
    finally:
        _end(parent, child)


def _end(parent: subprocess.Popen[Any], child: int) -> None:
    parent.kill()
    parent.wait()
    if parent.stdout is not None:
        parent.stdout.close()
    if child:
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: not os.path.exists(f"/proc/{child}") or _is_zombie(child), 60, "the child's end")


def _is_zombie(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] in "ZX"
