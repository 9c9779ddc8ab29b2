from __future__ import annotations

import json
import re

import pytest

from relier.store import Parking, Sending, Settled, Store, shard_of
from tests.cli.conftest import CommandLine, Tasks


def test_tasks_are_listed_by_state(rl: CommandLine, tasks: Tasks) -> None:
    made = {
        "running": tasks.running()[0].task_id,
        "completed": tasks.completed().task_id,
        "dead": tasks.dead().task_id,
        "discarded": tasks.discarded().task_id,
        "scheduled": tasks.scheduled().task_id,
        "due": tasks.scheduled(0.0).task_id,
    }
    for state, task_id in made.items():
        listing = rl.json("tasks", "list", "--state", state)
        assert [(task["id"], task["status"]) for task in listing["tasks"]] == [(task_id, state)]
        assert listing["counts"] == {**dict.fromkeys(made, 1), "queued": 0, "marked": 0}


def published(store: Store) -> None:
    store.tasks.mark_published(store.tasks.due(range(64), 10)[1], 30.0, 60.0)


def test_a_published_task_is_queued(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    waiting = tasks.scheduled(0.0)
    published(store)
    (task,) = rl.json("tasks", "list", "--state", "queued")["tasks"]
    assert (task["id"], task["published"]) == (waiting.task_id, 1)


def test_a_held_task_says_why(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    waiting = tasks.scheduled(0.0, queue="reports")
    store.tasks.park([(due, Parking("no consumer")) for due in store.tasks.due(range(64), 10)[1]], 600.0)

    (task,) = rl.json("tasks", "list", "--state", "due")["tasks"]
    assert (task["id"], task["queue"], task["reason"]) == (waiting.task_id, "reports", "no consumer")
    assert "no consumer" in rl("tasks", "list").stdout


def test_the_limit_keeps_the_newest(rl: CommandLine, tasks: Tasks) -> None:
    made = [tasks.completed().task_id for _ in range(5)]
    listing = rl.json("tasks", "list", "--limit", "2")
    assert [task["id"] for task in listing["tasks"]] == [made[4], made[3]]
    assert listing["counts"]["completed"] == 5


def test_tables_are_plain_and_aligned_without_a_terminal(rl: CommandLine, tasks: Tasks) -> None:
    tasks.running()
    header, line, counts, broker = rl("tasks", "list").stdout.splitlines()
    assert header.index("STATUS") == line.index("running")
    assert header.index("WORKER") == line.index("w1")
    assert counts.startswith("1 shown; all: scheduled 0, due 0, queued 0, running 1")
    assert broker == "messages in the broker: none"
    assert "\x1b" not in header + line


def test_a_task_is_told_with_arguments_runs_and_events(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    sending, _ = tasks.running("seven", 7)
    store.fleet.declare_dead(Tasks.worker)
    store.tasks.bury(Tasks.worker, [sending.shard], "crash")

    data = rl.json("tasks", "inspect", sending.task_id)

    assert (data["status"], data["resurrection_count"], data["worker"]) == ("due", 1, None)
    assert (data["args"], data["kwargs"]) == (["seven", 7], {"deep": True})
    assert [(run["worker"], run["outcome"]) for run in data["runs"]] == [("w1", "crashed")]
    assert [event["event"] for event in data["events"]] == ["crashed"]
    assert re.fullmatch(r".{10}T\d\d:\d\d:\d\dZ", data["created_at"]), "it is known to the second"
    assert [moment["what"] for moment in data["timeline"]] == ["enqueued", "run 1 began", "run 1 crashed"]

    text = rl("tasks", "inspect", sending.task_id).stdout
    assert "arguments:           ('seven', 7, deep=True)" in text
    assert " run 1 crashed w1 after " in " ".join(text.splitlines()[-2].split())
    assert text.splitlines()[-1].startswith("next ")
    assert "the sweep publishes it" in text.splitlines()[-1]


def test_bytes_that_cannot_be_decoded_are_shown_raw(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    raw = Sending("odd", shard_of("odd"), "default", "", b"\xff\x00")
    store.tasks.dead_letter(raw, "PayloadIntegrityError", b"")
    data = rl.json("tasks", "inspect", "odd")
    assert (data["args"], data["raw_base64"]) == (None, "/wA=")


@pytest.mark.parametrize("command", [["tasks", "inspect"], ["dlq", "inspect"]])
def test_an_unknown_task_is_one_line(rl: CommandLine, command: list[str]) -> None:
    done = rl(*command, "nobody")
    assert done.returncode == 1
    assert done.stderr.startswith("There is no record of task 'nobody'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [["tasks", "inspect"], ["dlq", "inspect"]])
def test_of_a_task_without_a_record_its_events_are_told(
    rl: CommandLine, store: Store, tasks: Tasks, command: list[str]
) -> None:
    sending, fence = tasks.running()
    rl("tasks", "cancel", sending.task_id)
    assert store.tasks.commit(Tasks.worker, sending, fence, hooks=False)
    store.tasks.settle([Settled(sending.task_id, sending.shard, fence, confirmed=True)])
    assert store.record(sending.task_id) is None

    done = rl(*command, sending.task_id)

    assert (done.returncode, done.stdout) == (1, "")
    error, noted, event = done.stderr.splitlines()
    assert error.startswith(f"There is no record of task {sending.task_id!r}")
    assert noted == "The store noted of it:"
    assert "Z  cancel asked  by rl:" in event


def test_a_waiting_task_is_cancelled(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    waiting = tasks.scheduled()
    answer = rl.json("tasks", "cancel", waiting.task_id)
    assert answer == {"id": waiting.task_id, "outcome": "cancelled", "told": "cancelled: it never runs again"}
    assert store.status(waiting.task_id) == "discarded"
    assert rl("tasks", "cancel", waiting.task_id).returncode == 0  # as it was


def test_the_owner_of_a_running_task_is_asked_to_cancel_it(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    sending, _ = tasks.running()
    assert rl("tasks", "cancel", sending.task_id).stdout.startswith(f"{sending.task_id}: running: its worker does not")

    with store.client.pubsub() as listener:
        listener.subscribe(store.keys.control(Tasks.worker))
        listener.get_message(timeout=60)
        done = rl("tasks", "cancel", sending.task_id)
        heard = listener.get_message(timeout=60)

    assert done.returncode == 0
    assert done.stdout.startswith(f"{sending.task_id}: asked: its worker was told")
    assert store.record(sending.task_id).reason == "cancel asked"  # type: ignore[union-attr]
    assert heard is not None
    assert json.loads(heard["data"]) == {"v": 1, "type": "cancel", "task": sending.task_id}


def test_the_beginning_of_an_id_changes_nothing(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    waiting = tasks.scheduled().task_id
    counters = store.counters()
    for command in ("cancel", "retry"):
        done = rl("tasks", command, waiting[:-1])
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"Nothing was done: {waiting[:-1]!r} is no whole id. Is {waiting} meant?\n"
    assert store.status(waiting) == "scheduled"
    assert store.counters() == counters


def test_a_task_of_which_nothing_is_known_is_marked(rl: CommandLine, store: Store) -> None:
    for _ in range(2):
        assert rl.json("tasks", "cancel", "nobody")["outcome"] == "marked"
    assert store.counters() == {}
    assert rl("audit").returncode == 0
    listing = rl.json("tasks", "list", "--state", "marked")
    assert [task["id"] for task in listing["tasks"]] == ["nobody"]
    assert (listing["counts"]["marked"], listing["counts"]["discarded"]) == (1, 0)
    data = rl.json("tasks", "inspect", "nobody")
    assert (data["status"], [moment["what"] for moment in data["timeline"]]) == ("marked", ["first known", "marked"])
    assert "may have run before" in rl("tasks", "inspect", "nobody").stdout


def test_an_ended_task_is_not_cancelled(rl: CommandLine, tasks: Tasks) -> None:
    done = rl("tasks", "cancel", tasks.discarded().task_id)
    assert (done.returncode, done.stderr) == (1, "")
    assert "ended: it had completed or was discarded" in done.stdout


def test_a_waiting_task_is_retried_at_once_and_says_by_whom(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    waiting = tasks.scheduled()
    assert rl.json("tasks", "retry", waiting.task_id)["outcome"] == "due"
    (due,) = store.tasks.due(range(64), 10)[1]
    assert due.task_id == waiting.task_id
    whats = [(m["what"], m["by"][:3]) for m in rl.json("tasks", "inspect", waiting.task_id)["timeline"][1:]]
    assert whats == [("retried", "rl:")]


def test_a_dead_letter_is_retried_by_its_release(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    dead = tasks.dead()
    assert rl.json("tasks", "retry", dead.task_id)["outcome"] == "released"
    assert store.status(dead.task_id) == "scheduled"


def test_what_runs_waits_in_the_broker_or_ended_is_not_retried(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    running, ended, queued = tasks.running()[0], tasks.discarded(), tasks.scheduled(0.0)
    published(store)
    for task_id, told in {
        running.task_id: "running",
        ended.task_id: "ended",
        queued.task_id: "queued",
        "nobody": "unknown",
    }.items():
        done = rl("tasks", "retry", task_id)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.startswith(f"{task_id}: {told}:")


def test_a_task_is_named_by_how_its_id_begins(rl: CommandLine, tasks: Tasks) -> None:
    known = [tasks.scheduled().task_id for _ in range(3)][1]
    assert rl.json("tasks", "inspect", known[:13])["id"] == known
    assert rl("tasks", "inspect", known[:5]).stderr.startswith(f"There is no record of task '{known[:5]}'")
    assert rl("tasks", "inspect", known[:5] + "*").returncode == 1  # It is no pattern.


def test_filters_narrow_the_list_but_not_the_counts(rl: CommandLine, tasks: Tasks) -> None:
    wanted = tasks.scheduled(queue="reports")
    tasks.scheduled()
    tasks.dead()
    for options in (("--queue", "reports"), ("--queue", "reports", "--actor", "work", "--since", "1h")):
        listing = rl.json("tasks", "list", *options)
        assert [task["id"] for task in listing["tasks"]] == [wanted.task_id]
        assert listing["counts"]["scheduled"] == 2
    for options in (("--actor", "nobody"), ("--reason", "no consumer"), ("--since", "2100-01-01")):
        assert rl.json("tasks", "list", *options)["tasks"] == []
    assert len(rl.json("tasks", "list", "--reason", "ValueError")["tasks"]) == 1
    assert rl("tasks", "list", "--since", "yesterday").returncode == 2


def test_a_refused_message_tells_whose_it_claims_to_be(rl: CommandLine, tasks: Tasks) -> None:
    letter = tasks.refused("its signature is wrong")
    (task,) = rl.json("tasks", "list")["tasks"]
    assert (task["id"], task["actor"], task["claimed_actor"]) == (letter.task_id, "", "work")
    assert "(claims work)" in rl("tasks", "list").stdout


@pytest.mark.parametrize(
    ("reason", "next_"),
    [
        ("paused", "until somebody lets it go on: rl queue resume default"),
        (
            "parked",
            "until other code of its actor is deployed, or somebody lets it go on: rl queue resume --actor work",
        ),
    ],
)
def test_a_held_task_tells_the_way_out(rl: CommandLine, store: Store, tasks: Tasks, reason: str, next_: str) -> None:
    waiting = tasks.scheduled(0.0)
    store.tasks.park([(due, Parking(reason)) for due in store.tasks.due(range(64), 10)[1]], 600.0)
    assert f"it is held ({reason}) {next_}" in rl("tasks", "inspect", waiting.task_id).stdout


def test_counts_that_are_zero_are_no_noise(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    quiet = rl("tasks", "inspect", tasks.dead().task_id).stdout
    assert "published:" not in quiet
    waiting = tasks.scheduled(0.0)
    assert "identical failures:" not in rl("tasks", "inspect", waiting.task_id).stdout
    published(store)
    assert "published:           1\n" in rl("tasks", "inspect", waiting.task_id).stdout
