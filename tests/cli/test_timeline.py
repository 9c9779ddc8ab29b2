"""A task's life in the order of time, each thing once."""

from __future__ import annotations

import time
from typing import Any

import pytest
from dramatiq import Message

from relier.dlq import DeadLetters
from relier.store import Sending, Store, shard_of
from relier_cli.lookup import find
from tests.cli.conftest import Tasks
from tests.servers import RedisServer


@pytest.fixture(params=["embedded"])
def server(request: pytest.FixtureRequest) -> RedisServer:
    """One kind of server will do: it is about what is made of a record."""
    return request.getfixturevalue("servers").store(request.param)  # type: ignore[no-any-return]


def whats(store: Store, task_id: str) -> list[str]:
    moments = find(store, task_id).timeline()
    assert moments == sorted(moments, key=lambda moment: moment.at)
    return [moment.what for moment in moments]


def test_a_dead_letter_that_was_released_and_runs_again(store: Store, tasks: Tasks) -> None:
    dead = tasks.dead()
    store.tasks.hold(dead.task_id, "release", "rl:me@here", dead.shard)
    (due,) = store.tasks.due([dead.shard], 10)[1]
    store.tasks.claim(Tasks.worker, dead, b"m", due.fence, slot_free=True)

    life = ["enqueued", "run 1 began", "run 1 failed", "dead-lettered", "released", "run 2 began"]
    assert whats(store, dead.task_id) == life
    released = find(store, dead.task_id).timeline()[4]
    assert (released.by, released.detail) == ("rl:me@here", "")


def test_a_letter_that_came_from_elsewhere_and_was_released(store: Store, tasks: Tasks) -> None:
    dead = tasks.dead("wrong")
    letters = DeadLetters(store, "me")
    (entry,) = letters.export()
    store.client.flushdb()
    assert letters.take_in([entry]) == ["imported"]
    store.tasks.hold(dead.task_id, "release", "you", dead.shard)

    assert whats(store, dead.task_id)[-2:] == ["imported", "released"]
    assert whats(store, dead.task_id).count("imported") == 1
    assert [moment.by for moment in find(store, dead.task_id).timeline()[-2:]] == ["me", "you"]


def test_a_crash_a_hand_over_and_a_cancel(store: Store, tasks: Tasks) -> None:
    sending, _ = tasks.running()
    store.tasks.bury(Tasks.worker, [sending.shard], "crash")
    (due,) = store.tasks.due([sending.shard], 10)[1]
    claim = store.tasks.claim("w2", sending, b"m", due.fence, slot_free=True)
    store.tasks.hand_over("w2", sending, claim.fence, "shutdown")
    (due,) = store.tasks.due([sending.shard], 10)[1]
    store.tasks.claim("w3", sending, b"o", due.fence, slot_free=True)
    store.tasks.hold(sending.task_id, "cancel", "rl:me@here", sending.shard)

    runs = ["run 1 began", "run 1 crashed", "run 2 began", "run 2 handed over", "run 3 began"]
    assert whats(store, sending.task_id) == ["enqueued", *runs, "cancel asked"]
    assert [moment.by for moment in find(store, sending.task_id).timeline()] == [
        *("", "w1", "w1", "w2", "w2", "w3"),
        "rl:me@here",
    ]


def test_what_is_left_of_a_discarded_task(store: Store, tasks: Tasks) -> None:
    known, discarded = find(store, tasks.discarded().task_id).timeline()
    assert [known.what, discarded.what] == ["first known", "discarded"]
    assert (len(known.data()["at"] or ""), len(discarded.data()["at"] or "")) == (20, 24), (
        "to the second, and to the ms"
    )


def test_events_that_were_trimmed_are_not_needed_for_its_end(store: Store, tasks: Tasks) -> None:
    dead = tasks.dead()
    store.client.delete(store.keys.shard(dead.shard, "")[4])
    assert whats(store, dead.task_id)[-1] == "dead-lettered"


@pytest.mark.parametrize(("ahead", "begins_with"), [(0.2, "enqueued"), (90.0, "run 1 began")])
def test_a_slightly_misjudged_time_puts_nothing_before_the_beginning(
    ahead: float, begins_with: str, store: Store, tasks: Tasks
) -> None:
    message = Message[Any]("default", "work", (), {}, {}, message_timestamp=int((time.time() + ahead) * 1000))
    sending = Sending(message.message_id, shard_of(message.message_id), "default", "work", message.encode())
    store.tasks.claim(Tasks.worker, sending, b"n", 0, slot_free=True)
    life = whats(store, sending.task_id)
    assert (life[0], sorted(life)) == (begins_with, ["enqueued", "run 1 began"])
