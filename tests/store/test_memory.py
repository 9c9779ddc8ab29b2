"""What the store needs per task, and what goes on when its server is out of memory."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from relier.store import SHARDS, Claim, Sending, shard_of
from relier.store.connection import no_retries
from relier.store.purging import EVERYTHING, Purge
from relier.store.records import Record
from tests import sources
from tests.conftest import PrivateServers
from tests.store.desk import Desk

kinds = pytest.mark.parametrize("kind", sources.STORES)


@pytest.fixture
def full(private_server: PrivateServers, kind: str) -> Iterator[tuple[Desk, Callable[[], None]]]:
    """A store, and a function that makes its server run out of memory."""
    client = private_server(kind).client(retry=no_retries())
    desk = Desk(client)
    yield desk, lambda: _fill(client)
    desk.store.close()


def _fill(client: redis.Redis) -> None:
    client.config_set("maxmemory", "1")
    with pytest.raises(redis.OutOfMemoryError):
        client.set("relier", "full")


Full = tuple[Desk, Callable[[], None]]


@kinds
def test_without_memory_nothing_is_accepted_and_nothing_half_written(full: Full) -> None:
    desk, fill = full
    fill()

    with pytest.raises(redis.OutOfMemoryError):
        desk.tasks.schedule(desk.sending(), 0)
    with pytest.raises(redis.OutOfMemoryError):
        desk.store.fleet.register("w1", {})

    assert desk.client.dbsize() == 0


@kinds
def test_without_memory_running_tasks_end(full: Full) -> None:
    desk, fill = full
    fences = {task: desk.run("w1", task) for task in ("a", "b", "c", "d", "e")}
    fill()

    assert desk.commit(fences["a"], task="a", hooks=True, result=b"x" * 10_000)
    desk.settle(fences["a"], "a", confirmed=False)
    assert desk.fail(fences["b"], task="b", retry=True) == "retry"
    assert desk.fail(fences["c"], task="c") == "dead"
    assert desk.tasks.discard("w1", desk.sending("d"), fences["d"], "skipped")
    assert desk.tasks.hand_over("w1", desk.sending("e"), fences["e"], "drain")

    assert [desk.state(task) for task in "abcde"] == ["e", "s", "d", "e", "s"]


@kinds
def test_without_memory_copies_are_claimed_so_that_queues_drain(full: Full) -> None:
    desk, fill = full
    fill()
    assert desk.commit(desk.run("w1"))


@kinds
def test_without_memory_a_purge_makes_room(full: Full) -> None:
    """It is what a person does then."""
    desk, fill = full
    desk.tasks.schedule(desk.sending(), 3600.0)
    fill()
    purge = Purge((EVERYTHING,), desk.wait(1) // 1_000_000 + 1, desk.wait(0) / 1e6, "somebody")
    desk.store.purges.clock = desk.wait(0)

    desk.store.purges.mark(purge)

    assert sorted(task for page in desk.store.purges.waiting(purge) for task in page) == ["t"]
    assert desk.count("discarded:purged") == 1


@kinds
def test_without_memory_the_dead_are_buried_and_their_tasks_run_again(full: Full) -> None:
    desk, fill = full
    desk.store.fleet.register("w1", {})
    desk.run("w1", "a")
    desk.run("w1", "b")
    fill()

    assert desk.store.fleet.beat("w1").answer == "ok"
    assert desk.tasks.reconcile("w1", desk.tasks.begin_snapshot(), {7: [("a", 1)]}).released == ("b",)
    assert desk.store.fleet.declare_dead("w1")
    assert desk.bury("w1").put_back == 1
    assert desk.claim("w2", "a", desk.published("a")).fence
    desk.store.fleet.fulfilled("w1")
    assert desk.tasks.group_join("g", "m", 1000) == (0, -1)


@kinds
def test_a_running_task_takes_at_most_400_bytes_beside_its_payload(full: Full) -> None:
    desk, _ = full
    tasks, per_worker = 20_000, 8  # The fewer a worker runs, the more each costs.
    body = b"x" * 200
    workers = [f"worker-host-{i}:{12345 + i}:{i:08x}" for i in range(tasks // per_worker)]
    before = _used(desk.client)

    ids = [str(uuid.UUID(int=i * 0x9E3779B97F4A7C15 % 2**128)) for i in range(tasks)]
    for i, task_id in enumerate(ids):
        sending = Sending(task_id, shard_of(task_id), "default", "process_one_invoice", body)
        assert _claim(desk, workers[i // per_worker], sending, i.to_bytes(4)).fence

    each = (_used(desk.client) - before) / tasks - len(body)
    assert {shard_of(task_id) for task_id in ids} == set(range(SHARDS))
    assert each <= 400, f"{each:.0f} bytes"


def _claim(desk: Desk, worker: str, sending: Sending, nonce: bytes) -> Claim:
    return desk.tasks.claim(worker, sending, nonce, 0, slot_free=True)


def _used(client: redis.Redis) -> int:
    info: Any = client.info("memory")
    return int(info["used_memory"])


@kinds
def test_a_history_of_runs_is_bounded(full: Full) -> None:
    desk, _ = full
    desk.run("w", max_resurrections=100)
    for _ in range(30):
        assert desk.tasks.hand_over("w", desk.sending(), desk.record().fence, "drain")
        assert desk.claim("w", seen=desk.published()).fence
    record: Record = desk.record()
    assert len(record.runs) == 20
