"""Actors of the integration tests. Each run leaves lines in an effect log, so that tests can explain every one."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any, NoReturn

import dramatiq
from dramatiq import Broker
from dramatiq.middleware import SkipMessage

from relier import TaskContext, idempotency_lock, rl_actor, task_context

EFFECTS_VARIABLE = "RL_TEST_EFFECTS"

#: Tells a worker that it has the code in which `checksum` is fixed.
FIXED_VARIABLE = "RL_TEST_FIXED"


def note(what: str, detail: Any = None) -> None:
    """Append one line to the effect log; the kernel keeps it when the process is killed right after."""
    line = {
        "task": task_context.task_id,
        "actor": task_context.task_name,
        "fence": task_context.fence,
        "crashes": task_context.resurrection_count,
        "attempt": task_context.attempt,
        "pid": os.getpid(),
        "what": what,
        "detail": detail,
        "at": time.time(),
        "mono": time.monotonic(),
    }
    file = os.open(os.environ[EFFECTS_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, (json.dumps(line) + "\n").encode())
    finally:
        os.close(file)


class Actors:
    """All actors on one broker: in a worker on the global one, in a test on a broker of its own."""

    def __init__(self, broker: Broker) -> None:
        from tests.integration.dead_actors import DeadActors
        from tests.integration.failing_actors import FailingActors
        from tests.integration.limit_actors import LimitActors

        self.broker = broker
        self.limits = LimitActors(broker)
        self.failing = FailingActors(broker)
        self.dead = DeadActors(broker)
        self.add: Any = rl_actor(add, broker=broker, store_results=True)
        self.aadd: Any = rl_actor(aadd, broker=broker, store_results=True)
        self.plain: Any = dramatiq.actor(broker=broker, queue_name="default")(plain)
        self.aquick: Any = rl_actor(aquick, broker=broker)
        self.noop: Any = rl_actor(noop, broker=broker)
        self.short: Any = rl_actor(short, broker=broker)
        self.ashort: Any = rl_actor(ashort, broker=broker)
        self.nested: Any = rl_actor(nested, broker=broker, store_results=True)
        self.quick: Any = rl_actor(quick, broker=broker)
        self.flaky: Any = rl_actor(flaky, broker=broker, max_retries=5, min_backoff=1, max_backoff=20)
        self.broken: Any = rl_actor(broken, broker=broker, store_results=True)
        self.skipping: Any = rl_actor(skipping, broker=broker)
        self.gated: Any = rl_actor(gated, broker=broker)
        self.mended: Any = rl_actor(mended, broker=broker, max_retries=0)
        self.blocked: Any = rl_actor(blocked, broker=broker)
        self.agated: Any = rl_actor(agated, broker=broker)
        self.stubborn: Any = rl_actor(stubborn, broker=broker)
        self.blocking: Any = rl_actor(blocking, broker=broker)
        self.chatty: Any = rl_actor(chatty, broker=broker)
        self.holding: Any = rl_actor(holding, broker=broker)
        self.forking: Any = rl_actor(forking, broker=broker)
        self.escaping: Any = rl_actor(escaping, broker=broker)
        self.aescaping: Any = rl_actor(aescaping, broker=broker)
        self.spawning: Any = rl_actor(spawning, broker=broker)
        self.crippling: Any = rl_actor(crippling, broker=broker)
        self.hoarding: Any = rl_actor(hoarding, broker=broker, max_retries=1, min_backoff=1, max_backoff=5)
        self.two_gates: Any = rl_actor(two_gates, broker=broker)
        self.answering: Any = rl_actor(answering, broker=broker, store_results=True)
        self.once: Any = rl_actor(once, broker=broker, idempotency_key="{gate}", max_resurrections=50)
        self.add_once: Any = rl_actor(
            add_once, broker=broker, idempotent=True, max_retries=5, min_backoff=1, max_backoff=20
        )
        self.protected: Any = rl_actor(
            protected,
            broker=broker,
            idempotent=True,
            soft_timeout=50,
            hard_timeout=60,
            schema_version=2,
            park_after=100,
            store_results=True,
        )
        self.newest: Any = rl_actor(newest, broker=broker, job_key="{job}", min_backoff=600_000, max_backoff=600_000)
        self.anewest: Any = rl_actor(anewest, broker=broker, job_key="{job}")
        self.finishing: Any = rl_actor(
            newest, actor_name="finishing", broker=broker, job_key="{job}", on_superseded="finish"
        )
        self.repeating: Any = rl_actor(repeating, broker=broker, job_key="{job}")
        self.checksum: Any = rl_actor(checksum, broker=broker, job_key="report:{report}")
        self.strict: Any = rl_actor(
            checksum, actor_name="strict", broker=broker, job_key="report:{report}", on_dead_job="refuse"
        )
        self.returning: Any = rl_actor(returning, broker=broker, store_results=True)
        self.locked: Any = rl_actor(locked, broker=broker)
        self.told: Any = rl_actor(told, broker=broker)
        self.poison: Any = rl_actor(poison, broker=broker, max_resurrections=2)
        self.notified: Any = rl_actor(notified, broker=broker, notify_shutdown=True)
        self.limited: Any = rl_actor(
            limited, broker=broker, time_limit=1000, max_retries=3, min_backoff=1, max_backoff=5
        )


def add(x: int, y: int, ctx: TaskContext) -> int:
    note("ran", [x, y, ctx.attempt])
    return x + y


async def aadd(x: int, y: int, ctx: TaskContext) -> int:
    await asyncio.sleep(0)
    note("ran", [x, y, ctx.attempt])
    return x + y


def plain(x: int) -> None:
    note("ran", x)


def quick(x: int) -> None:
    note("ran", x)


def noop() -> None:
    """Leave no trace."""


def short(seconds: float) -> None:
    note("began", seconds)
    time.sleep(seconds)
    note("ran", seconds)


async def ashort(seconds: float) -> None:
    note("began", seconds)
    await asyncio.sleep(seconds)
    note("ran", seconds)


def nested(x: int) -> int:
    """Call other actors as functions: no tasks of their own."""
    actors = dramatiq.get_broker().actors
    note("ran", x)
    return int(actors["add"](x, 1))


async def aquick(x: int) -> None:
    note("ran", x)


def flaky(failures: int) -> None:
    note("ran", failures)
    if task_context.attempt < failures:
        raise RuntimeError("not yet")


def broken(text: str = "broken") -> None:
    note("ran", text)
    raise TypeError(text)


def skipping() -> None:
    note("ran")
    raise SkipMessage("not wanted")


def mended(gate: str) -> None:
    """Fail until the gate is open."""
    note("began")
    if not Path(gate).exists():
        raise TypeError("not mended yet")
    note("ran")


def gated(gate: str, error: str = "") -> None:
    """Run until the gate, a file, exists."""
    note("began", gate)
    while not Path(gate).exists():
        time.sleep(0.005)
    note("ran", gate)
    if error:
        raise RuntimeError(error)


def blocked(pipe: str, seconds: float) -> None:
    """Wait for the writer of a named pipe, without using the processor; take some seconds when there is no pipe."""
    note("began")
    try:
        os.close(os.open(pipe, os.O_RDONLY))
    except FileNotFoundError:
        time.sleep(seconds)


def two_gates(first: str, second: str) -> None:
    """Like gated, with another gate after a crash."""
    gated(second if task_context.resurrection_count else first)


def answering(gate: str) -> int:
    """Like gated, with a result."""
    gated(gate)
    return 42


def once(gate: str, submission: int = 0) -> str:
    """Like gated, with a result that tells its run from every other."""
    gated(gate)
    return f"{task_context.task_id}/{task_context.fence}"


def add_once(x: int, y: int, gate: str = "/") -> int:
    """Like gated, with a sum; its first attempt fails."""
    if task_context.attempt == 0:
        raise RuntimeError("not yet")
    gated(gate)
    return x + y


def newest(job: str, gate: str = "/", error: str = "") -> None:
    """Like gated, once for all tasks of a job."""
    gated(gate, error)


async def anewest(job: str, gate: str = "/") -> None:
    await agated(gate)


def repeating(job: str, left: int) -> None:
    """Push itself again, and then have a moment to be interrupted."""
    note("began", left)
    if left:
        dramatiq.get_broker().get_actor("repeating").push(job, left - 1)  # type: ignore[attr-defined]
        for _ in range(3000):
            time.sleep(0.01)
    note("ran", left)


def checksum(report: int, text: str) -> None:
    """Fail as the code before its fix does, until the environment says that it is there."""
    note("began", report)
    data: Any = text.encode() if os.environ.get(FIXED_VARIABLE) else text
    zlib.crc32(data)
    note("ran", report)


async def protected(x: int) -> int:
    """Has every protection."""
    return x


def returning(what: str) -> Any:
    """Return what cannot be kept."""
    note("ran", what)
    return "x" * 1000 if what == "large" else object()


async def locked(gate: str) -> None:
    """Like agated, once for all tasks together."""
    async with idempotency_lock(gate, ttl=600) as lock:
        if lock.already_executed:
            note("cached", lock.cached_result)
        else:
            await agated(gate)
            lock.set_result(task_context.task_id)


async def agated(gate: str) -> None:
    note("began", gate)
    try:
        while not Path(gate).exists():
            await asyncio.sleep(0.005)
    except asyncio.CancelledError:
        note("cancelled", gate)
        raise
    note("ran", gate)


async def stubborn(seconds: float) -> None:
    """Swallow every cancel."""
    note("began", seconds)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


async def blocking(seconds: float) -> None:
    """Block the event loop."""
    note("began", seconds)
    time.sleep(seconds)


def chatty(kilobytes: int) -> None:
    """Log more than a pipe holds."""
    note("began")
    for i in range(kilobytes):
        logging.getLogger(__name__).warning("line %d %s", i, "x" * 1000)
    note("ran")


def holding(seconds: int) -> None:
    """Hold the interpreter: no other thread of the process can do anything."""
    note("began", seconds)
    ctypes.PyDLL(None).sleep(seconds)
    note("ran", seconds)


#: How long (s) a forked child lives at most, should a test not end it.
CHILDS_LIFE = 120


def _child_that_waits(gate: str) -> NoReturn:
    signal.alarm(CHILDS_LIFE)
    while not Path(gate).exists():
        time.sleep(0.01)
    os._exit(0)


def forking(gate: str, how: str) -> None:
    """Run like gated, with a forked child that lives as long as another gate is shut, whatever happens to us."""
    child = os.fork() if how == "fork" else ctypes.PyDLL(None).fork()  # `raw`: no hook of Python's runs
    if child == 0:
        _child_that_waits(gate + "-child")
    note("child", child)
    gated(gate)


def _fork_and_escape(how: str) -> bool:
    """Return True in a forked child that is to come back from the task, False in the task."""
    child = os.fork()
    if child == 0:
        signal.alarm(CHILDS_LIFE)
        if how == "raise":
            raise RuntimeError("from the child")
        if how == "exit":
            sys.exit(7)
        return True
    note("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return False


def escaping(how: str) -> None:
    """Fork a child that comes back from the task, as code does that forgets `os._exit`."""
    if not _fork_and_escape(how):
        note("ran", how)


async def aescaping(how: str) -> None:
    if not _fork_and_escape(how):
        note("ran", how)


def spawning() -> None:
    """Start children in the ways of the standard library, and end one by a signal."""
    fork = multiprocessing.get_context("fork")
    sleeper = fork.Process(target=time.sleep, args=(CHILDS_LIFE,))
    sleeper.start()
    sleeper.terminate()
    sleeper.join(CHILDS_LIFE)
    with fork.Pool(2) as pool:
        squares = pool.map(_square, range(5))
    done = subprocess.run([sys.executable, "-c", "print('done')"], check=True, capture_output=True)
    note("ran", [sleeper.exitcode, squares, done.stdout.decode().strip()])


def _square(x: int) -> int:
    return x * x


def crippling() -> None:
    """Let this worker thread end after the task, as one does that finds no memory between two tasks."""
    thread: Any = threading.current_thread()
    thread.work_queue = None
    note("ran")


def hoarding(megabytes: int, how: str) -> None:
    """Need more memory than the process may have: at once, or little by little until nothing is left for anybody."""
    note("began", how)
    with Path("/proc/self/statm").open() as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20, before[1]))
    try:
        if how == "at once":
            bytearray(2 * megabytes * 2**20)
        hoard: list[Any] = []
        while True:
            hoard.append([None] * 50)
    finally:
        if how == "at once":
            resource.setrlimit(resource.RLIMIT_AS, before)


def told(*args: Any) -> None:
    """Follow others: as callback, pipeline stage, group completion."""
    note("told", list(args))


def poison(marker: str = "") -> None:
    note("began")
    os.abort()


def limited(gate: str) -> None:
    """Like gated, with a time limit of a second."""
    gated(gate)


def notified(gate: str) -> None:
    """Like gated, with a notice when the worker stops."""
    gated(gate)
