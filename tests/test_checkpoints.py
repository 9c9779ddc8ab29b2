"""A task's code keeps how far it has come, and its next run finds it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from dramatiq.middleware import Shutdown

from relier import CheckpointTooLargeError, StaleFenceError, TaskContext
from relier.checkpoint_files import CheckpointFiles
from relier.checkpoints import SMALL, Checkpoint
from relier.envelope import Stamp
from relier.errors import StoreUnavailableError
from relier.runs import Phase, Run
from relier.settings import Settings
from tests.store.desk import SHARD, Desk

LARGE = {"page": 3, "found": ["x" * 100] * 20}
HUGE = {"page": 4, "found": ["x" * 100] * 2000}


class Worker:
    """What a checkpoint needs of its process, on a real store, and the runs of one task."""

    def __init__(self, client: redis.Redis, folder: Path, **options: Any) -> None:
        self.desk = Desk(client)
        self.calls = 0
        store = self.desk.store
        self.process: Any = SimpleNamespace(
            settings=Settings(checkpoint_dir=folder, **options),
            store=store,
            patiently=self._patiently,
            checkpoint_files=CheckpointFiles(folder, store.fleet.checkpoint_folder),
        )

    def _patiently(self, call: Any) -> Any:
        self.calls += 1
        return call()

    def run(self, name: str = "w1") -> TaskContext:
        """Let a worker run the task; returns what its code gets."""
        seen = self.desk.published() if self.desk.find() else 0
        claim = self.desk.claim(name, seen=seen)
        message = SimpleNamespace(actor_name="act", args=(), kwargs={}, options={})
        run = Run(message, Stamp("t", SHARD), self.desk.sending(), name, fence=claim.fence, phase=Phase.RUNNING)
        run.checkpoint = Checkpoint(self.process, run, claim.checkpoint)
        return TaskContext.of(run)

    def crash(self, name: str = "w1") -> None:
        self.desk.bury(name)


@pytest.fixture
def worker(client: redis.Redis, tmp_path: Path) -> Worker:
    return Worker(client, tmp_path, checkpoint_backend="filesystem", checkpoint_max_inline_bytes=10_000)


@pytest.mark.parametrize("data", [{"page": 3}, "text", 0, [], LARGE, HUGE, "x" * (SMALL - 10)])
def test_the_next_run_finds_what_was_kept(worker: Worker, data: Any) -> None:
    first = worker.run()
    assert first.partial_result is None
    first.set_partial_sync({"page": 1})
    first.set_partial_sync(data)
    assert first.partial_result == data
    worker.crash()
    assert worker.run("w2").partial_result == data


def test_what_is_small_comes_with_the_claim_and_what_is_large_when_it_is_read(worker: Worker) -> None:
    worker.run().set_partial_sync({"page": 3})
    worker.crash()
    second, calls = worker.run("w2"), worker.calls
    assert (second.partial_result, worker.calls) == ({"page": 3}, calls)
    second.set_partial_sync(LARGE)
    worker.crash("w2")
    third, calls = worker.run("w3"), worker.calls
    assert worker.calls == calls
    assert third.partial_result == third.partial_result == LARGE
    assert worker.calls == calls + 1


def test_what_is_kept_is_a_value_of_its_own(worker: Worker) -> None:
    context, data = worker.run(), {"done": [1]}
    context.set_partial_sync(data)
    data["done"].append(2)
    assert context.partial_result == {"done": [1]}


def test_files_that_are_of_no_use_any_more_are_removed(worker: Worker, tmp_path: Path) -> None:
    context = worker.run()
    for size in (2000, 3000):
        context.set_partial_sync("x" * 10 * size)
        assert len(list(tmp_path.rglob("*.ckpt"))) == 1
    context.set_partial_sync("small")
    assert list(tmp_path.rglob("*.ckpt")) == []


def test_async_code_keeps_it_without_blocking_its_loop(worker: Worker) -> None:
    context = worker.run()

    async def act() -> None:
        await context.set_partial({"page": 1})
        with pytest.raises(RuntimeError, match=r"use `await ctx.set_partial\(...\)`"):
            context.set_partial_sync({"page": 2})
        assert context.partial_result == {"page": 1}

    asyncio.run(act())


def test_what_is_too_large_says_how_large_and_what_to_do(client: redis.Redis, tmp_path: Path) -> None:
    worker = Worker(client, tmp_path, checkpoint_max_inline_bytes=100)
    context = worker.run()
    context.set_partial_sync("before")
    with pytest.raises(CheckpointTooLargeError) as caught:
        context.set_partial_sync("x" * 200)
    text = "Checkpoint for task 't' is 208 bytes, which exceeds the 100-byte inline limit."
    assert str(caught.value).startswith(text)
    assert "RELIER_CHECKPOINT_BACKEND=filesystem" in str(caught.value)
    assert context.partial_result == "before"


def test_without_room_in_redis_everything_goes_to_files(client: redis.Redis, tmp_path: Path) -> None:
    worker = Worker(client, tmp_path, checkpoint_backend="filesystem", checkpoint_max_inline_bytes=0)
    worker.run().set_partial_sync(1)
    worker.crash()
    assert worker.run("w2").partial_result == 1
    assert len(list(tmp_path.rglob("*.ckpt"))) == 1


def test_what_cannot_be_encoded_is_refused(worker: Worker) -> None:
    context = worker.run()
    context.set_partial_sync("before")
    with pytest.raises(TypeError, match="The checkpoint of task t cannot be encoded by JSONEncoder") as caught:
        context.set_partial_sync(object())
    assert isinstance(caught.value.__cause__, TypeError)
    assert caught.value.__cause__.__context__ is None, "nothing but the encoder's error stands in the traceback"
    assert context.partial_result == "before"


@pytest.mark.parametrize("data", ["small", LARGE, HUGE])
def test_an_overtaken_run_keeps_nothing(worker: Worker, tmp_path: Path, data: Any) -> None:
    zombie = worker.run()
    worker.crash()
    worker.run("w2").set_partial_sync("by the second")
    with pytest.raises(StaleFenceError):
        zombie.set_partial_sync(data)
    assert list(tmp_path.rglob("*.ckpt")) == []
    worker.crash("w2")
    assert worker.run("w3").partial_result == "by the second"


@pytest.mark.parametrize("error", [Shutdown("now"), StoreUnavailableError("away")])
def test_a_file_that_the_store_knows_outlives_what_cuts_its_run_short(worker: Worker, error: BaseException) -> None:
    context = worker.run()
    context.set_partial_sync(HUGE)

    def cut_short(call: Any) -> None:
        call()
        raise error

    worker.process.patiently = cut_short
    with pytest.raises(type(error)):
        context.set_partial_sync({**HUGE, "page": 5})
    worker.process.patiently = lambda call: call()
    worker.crash()
    assert worker.run("w2").partial_result["page"] == 5


def test_a_run_that_is_over_asks_nobody(worker: Worker) -> None:
    worker.run()
    run = Run(SimpleNamespace(), Stamp("t", SHARD), worker.desk.sending(), "w1", phase=Phase.LOST)
    with pytest.raises(StaleFenceError):
        Checkpoint(worker.process, run, b"").keep(1)


def test_a_damaged_file_lets_the_task_begin_anew(worker: Worker, tmp_path: Path) -> None:
    worker.run().set_partial_sync(HUGE)
    worker.crash()
    for path in tmp_path.rglob("*.ckpt"):
        path.write_bytes(b"damaged")
    assert worker.run("w2").partial_result is None


def test_a_context_built_by_hand_keeps_it_in_memory() -> None:
    context = TaskContext(task_id="t", task_name="act", partial_result={"page": 1})
    assert context.partial_result == {"page": 1}
    context.set_partial_sync({"page": 2})
    assert context.partial_result == {"page": 2}
    asyncio.run(context.set_partial({"page": 3}))
    assert context.partial_result == {"page": 3}
    assert "page" not in repr(context)
