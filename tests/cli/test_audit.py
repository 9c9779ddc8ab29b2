from __future__ import annotations

import json
import threading

import pytest
from dramatiq import Message

from relier.account import COUNTERS
from relier.auditing import take_account
from relier.brokers import default_broker
from relier.settings import Settings
from relier.store import Store
from tests.cli.conftest import CommandLine, Tasks


def fill(tasks: Tasks) -> None:
    """One task or more in every state."""
    for _ in range(5):
        tasks.completed()
    for _ in range(3):
        tasks.dead()
    tasks.discarded()
    tasks.scheduled()
    tasks.running()
    released = tasks.dead()
    tasks.store.tasks.hold(released.task_id, "release", "test")
    cancelled = tasks.dead()
    tasks.store.tasks.hold(cancelled.task_id, "cancel", "test")


def test_an_account_that_adds_up(rl: CommandLine, tasks: Tasks) -> None:
    fill(tasks)
    done = rl("audit", "--json")

    account = json.loads(done.stdout)
    assert done.returncode == 0
    assert account["ok"]
    names = (
        "accepted",
        "completed",
        "dead_letters",
        "discarded",
        "waiting",
        "running",
        "difference",
        "in_motion",
        "dlq",
    )
    assert {name: account[name] for name in names} == {
        "accepted": 13,
        "completed": 5,
        "dead_letters": 3,
        "discarded": 2,
        "waiting": 2,
        "running": 1,
        "difference": 0,
        "in_motion": 0,
        "dlq": 3,
    }
    assert account["discarded_by_reason"] == {"skipped": 1, "cancelled": 1}
    assert account["counters"]["failed"] == 5
    assert account["queue_depths"]["default"] == 0


def test_every_counter_is_told(rl: CommandLine, store: Store) -> None:
    beside = [name for name in COUNTERS if name not in ("accepted", "completed", "dead", "dlq_left", "discarded")]
    counted = {name: number for number, name in enumerate([*beside, "of_a_newer_version"], start=1)}
    for name, number in counted.items():
        store.client.hincrby(store.keys.shard(7, "")[2], name, number)

    assert rl.json("audit")["counters"] == {**dict.fromkeys(COUNTERS, 0), **counted}
    (line,) = (line for line in rl("audit").stdout.splitlines() if line.startswith("counters: "))
    assert line == "counters: " + ", ".join(f"{name} {number}" for name, number in counted.items())


def test_tasks_in_motion_are_no_error(store: Store, settings: Settings, tasks: Tasks) -> None:
    over = threading.Event()

    def move() -> None:
        while not over.is_set():
            fill(tasks)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        accounts = [take_account(store, default_broker(settings), settings) for _ in range(8)]
    finally:
        over.set()
        mover.join()
    assert [(account.wrong_shards, account.stranded) for account in accounts] == [([], [])] * 8
    assert accounts[-1].counters["accepted"] > accounts[0].counters["accepted"]


def test_an_empty_store_adds_up(rl: CommandLine) -> None:
    done = rl("audit")
    assert done.returncode == 0
    assert done.stdout.endswith("Every accepted task is accounted for.\n")


def test_a_lost_record_is_found_and_named(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    fill(tasks)
    lost = tasks.scheduled()
    store.client.hdel(store.keys.shard(lost.shard, "")[0], lost.task_id)

    done = rl("audit", "--json")

    account = json.loads(done.stdout)
    assert done.returncode == 1
    assert (account["ok"], account["difference"], account["wrong_shards"]) == (False, 1, [lost.shard])
    assert account["wrong"] == [{"shard": lost.shard, "queue": "default", "actor": "work", "difference": 1}]
    assert account["lost"] == [{"task_id": lost.task_id, "shard": lost.shard, "found_in": "due"}]


@pytest.mark.parametrize("state", ["scheduled", "running", "dead"])
def test_the_text_says_where_a_record_was_deleted(rl: CommandLine, store: Store, tasks: Tasks, state: str) -> None:
    made = getattr(tasks, state)()
    lost = made[0] if isinstance(made, tuple) else made
    store.client.hdel(store.keys.shard(lost.shard, "")[0], lost.task_id)

    done = rl("audit")

    index = {"scheduled": "due", "running": f"running on {Tasks.worker}", "dead": "dlq"}[state]
    assert done.returncode == 1
    assert f"WRONG: task {lost.task_id} has no record, but shard {lost.shard:02} has it as {index}." in done.stdout
    where = f"WRONG: shard {lost.shard:02}, queue default, actor work does not add up: 1 accepted task neither ended"
    assert (where in done.stdout) is (state != "dead")


def test_a_task_of_which_nothing_is_left_is_found_by_its_queue_and_actor(
    rl: CommandLine, store: Store, tasks: Tasks
) -> None:
    fill(tasks)
    lost = tasks.scheduled(queue="low_priority")
    records, due = store.keys.shard(lost.shard, "")[:2]
    store.client.hdel(records, lost.task_id)
    store.client.zrem(due, lost.task_id)

    account = json.loads(rl("audit", "--json").stdout)

    assert account["wrong"] == [{"shard": lost.shard, "queue": "low_priority", "actor": "work", "difference": 1}]
    assert account["lost"] == []


def test_a_lost_dead_letter_is_found(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    letter = tasks.dead()
    store.client.zrem(store.keys.shard(letter.shard, "")[5], letter.task_id)

    account = rl.json("audit")
    assert account["wrong_shards"] == [letter.shard]
    assert account["stranded"] == [letter.task_id]


def test_the_account_is_told_by_queue_and_actor(rl: CommandLine, tasks: Tasks) -> None:
    tasks.completed()
    tasks.scheduled(queue="low_priority")

    account = rl.json("audit")

    told = {line["queue"]: line for line in account["tasks"]}
    nothing = dict.fromkeys(("completed", "dead_letters", "discarded", "waiting", "running", "difference"), 0)
    assert told["default"] == {"queue": "default", "actor": "work", "accepted": 1, **nothing, "completed": 1}
    assert told["low_priority"] == {"queue": "low_priority", "actor": "work", "accepted": 1, **nothing, "waiting": 1}


def test_what_only_the_broker_knows_of_is_counted(rl: CommandLine, settings: Settings, tasks: Tasks) -> None:
    broker = default_broker(settings)
    tasks.completed()
    for _ in range(3):
        broker.enqueue(Message("default", "work", (), {}, {}))

    account = rl.json("audit")

    assert account["ok"]
    assert {name: account[name] for name in ("pushed", "accepted", "on_the_way", "without_record")} == {
        "pushed": 4,
        "accepted": 1,
        "on_the_way": 3,
        "without_record": 3,
    }
    (queue,) = (queue for queue in account["queues"] if queue["queue"] == "default")
    assert queue == {"queue": "default", "messages": 3, "held": 0, "recorded": 0, "without_record": 3}


def test_what_a_version_without_statistics_counted_is_no_error(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    task = tasks.completed()
    store.client.delete(store.keys.statistics(task.shard))

    account = rl.json("audit")

    assert (account["ok"], account["unattributed"], account["tasks"]) == (True, 2, [])


def test_a_task_that_nothing_will_move_on_is_found(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    waiting, (running, _) = tasks.scheduled(), tasks.running()
    store.client.zrem(store.keys.shard(waiting.shard, "")[1], waiting.task_id)
    store.client.zrem(store.keys.shard(running.shard, Tasks.worker)[-1], running.task_id)

    done = rl("audit")
    assert done.returncode == 1
    for task in (waiting, running):
        assert f"WRONG: nothing will move task {task.task_id} on" in done.stdout
    assert "The account does not add up." in done.stdout
