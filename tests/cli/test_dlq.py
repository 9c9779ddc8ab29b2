from __future__ import annotations

from typing import Any

import pytest
from dramatiq import Message

from relier.store import Sending, Store, shard_of
from tests.cli.conftest import CommandLine, Tasks


def test_dead_letters_are_listed_newest_first(rl: CommandLine, tasks: Tasks) -> None:
    made = [tasks.dead(reason=reason).task_id for reason in ("ValueError", "KeyError", "TypeError")]
    listing = rl.json("dlq", "list", "--limit", "2")

    assert listing["total"] == 3
    assert [letter["id"] for letter in listing["dead_letters"]] == [made[2], made[1]]
    assert [letter["reason"] for letter in listing["dead_letters"]] == ["TypeError", "KeyError"]
    assert listing["dead_letters"][0]["message"] == "ValueError: no such thing"
    assert "2 of 3 dead letters" in rl("dlq", "list", "--limit", "2").stdout


def test_it_is_said_when_there_are_many(rl: CommandLine, tasks: Tasks) -> None:
    for _ in range(2):
        tasks.dead()
    said = "There are 2 dead letters; the alarm is set at 2 (RELIER_DLQ_ALARM)."

    assert rl("dlq", "list", dlq_alarm="2").stdout.endswith(f"2 of 2 dead letters\n{said}\n")
    (finding,) = [found for found in rl.json("doctor", dlq_alarm="2")["findings"] if found["name"] == "dead letters"]
    assert (finding["level"], finding["message"]) == ("warning", said)
    assert "RELIER_DLQ_ALARM" not in rl("dlq", "list", dlq_alarm="3").stdout
    assert "RELIER_DLQ_ALARM" not in rl("dlq", "list", dlq_alarm="0").stdout


def test_a_dead_letter_tells_why_and_the_likely_fix(rl: CommandLine, tasks: Tasks) -> None:
    try:
        raise ValueError("no such thing")
    except ValueError as error:
        letter = tasks.dead("seven", error=error)

    data = rl.json("dlq", "inspect", letter.task_id)

    assert (data["reason"], data["attempts"], data["resurrection_count"]) == ("ValueError", 1, 0)
    assert (data["actor"], data["queue"], data["args"]) == ("work", "default", ["seven"])
    assert (data["exception"]["type"], data["exception"]["message"]) == ("ValueError", "no such thing")
    assert "in test_a_dead_letter_tells_why" in data["exception"]["traceback"]
    assert [(run["worker"], run["outcome"]) for run in data["runs"]] == [("w1", "failed")]
    assert data["dead_lettered_at"]
    text = rl("dlq", "inspect", letter.task_id).stdout
    assert "exception:           ValueError: no such thing" in text
    assert "Traceback (most recent call last):" in text
    assert "likely fix: Look at the traceback" in text


@pytest.mark.parametrize(
    ("reason", "fix"),
    [
        ("PayloadIntegrityError", "Never retry it blindly."),
        ("SchemaMigrationError", "Fix the migration, deploy it, and release"),
        ("HardTimeoutError", "profile the actor, or raise its limit"),
        ("TimeLimitExceeded", "profile the actor, or raise its limit"),
        ("max_resurrections_exceeded", "look at the arguments"),
        ("ActorNotFound", "deploy one that does"),
        ("ModuleNotFoundError", "deploy what is missing"),
        ("PayloadTooLargeError", "send where the data is"),
        ("CheckpointTooLargeError", "RELIER_CHECKPOINT_BACKEND=filesystem"),
        ("UnsignableError", "correct what that one returns"),
        ("ResultMissing", "RELIER_MAX_RESULT_BYTES"),
    ],
)
def test_each_reason_has_its_likely_fix(rl: CommandLine, tasks: Tasks, reason: str, fix: str) -> None:
    assert fix in rl.json("dlq", "inspect", tasks.dead(reason=reason).task_id)["likely_fix"]


def test_what_is_the_matter_with_a_refused_message_decides_its_likely_fix(rl: CommandLine, tasks: Tasks) -> None:
    letter = tasks.refused("It is not signed.")
    assert "Its producer has no keys" in rl.json("dlq", "inspect", letter.task_id)["likely_fix"]


def test_a_refused_message_tells_what_it_claims_to_be(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    letter = tasks.refused("It is not signed.", "seven")
    claimed = Message[Any].decode(letter.body).message_id

    (listed,) = rl.json("dlq", "list")["dead_letters"]
    assert (listed["id"], listed["actor"]) == (letter.task_id, "")
    assert (listed["claimed_id"], listed["claimed_actor"]) == (claimed, "work")
    assert listed["message"].startswith("PayloadIntegrityError: It is not signed. It claims to be task ")
    heading, line, _ = rl("dlq", "list").stdout.splitlines()
    assert heading.endswith("CLAIMED ID                            CLAIMED ACTOR")
    assert line.split()[-2:] == [claimed, "work"]
    assert f"claimed id:          {claimed}" in rl("dlq", "inspect", letter.task_id).stdout

    asked = rl("tasks", "inspect", claimed)
    assert asked.returncode == 1
    assert "`rl dlq list` would have it under raw-" in asked.stderr


def test_only_refused_messages_claim_anything(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    tasks.dead()
    store.tasks.dead_letter(Sending("odd", shard_of("odd"), "default", "", b"\xff\x00"), "PayloadIntegrityError", b"")
    assert "CLAIMED" not in rl("dlq", "list").stdout
    assert {letter["claimed_id"] for letter in rl.json("dlq", "list")["dead_letters"]} == {None}


def test_a_task_that_is_no_dead_letter_is_refused(rl: CommandLine, tasks: Tasks) -> None:
    running, _ = tasks.running()
    done = rl("dlq", "inspect", running.task_id)
    assert done.returncode == 1
    assert done.stderr == f"Task '{running.task_id}' is no dead letter: it is running.\n"


def test_a_released_dead_letter_waits_to_run_again(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    letter = tasks.dead()
    assert rl.json("dlq", "release", letter.task_id) == [{"id": letter.task_id, "outcome": "released"}]

    record = store.record(letter.task_id)
    assert record is not None
    assert (record.state, record.attempt) == ("s", 0)
    assert record.runs[-1].worker.startswith("rl:")
    assert rl.json("dlq", "list")["total"] == 0


def test_what_cannot_be_released_says_why(rl: CommandLine, tasks: Tasks) -> None:
    letter, (running, _) = tasks.dead(), tasks.running()
    done = rl("dlq", "release", letter.task_id, running.task_id, "nobody")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"{letter.task_id}: released",
        f"{running.task_id}: no dead letter, it is running",
        "nobody: unknown",
    ]


def test_the_beginning_of_an_id_releases_nothing(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    letter, other = tasks.dead().task_id, tasks.dead().task_id
    for ids in ([other, letter[:-1]], [letter[:-1], "--args", "[1]"]):
        done = rl("dlq", "release", *ids)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"Nothing was done: {letter[:-1]!r} is no whole id. Is {letter} meant?\n"
    assert store.status(letter) == store.status(other) == "dead"
