"""`rl dlq` on many dead letters: what is typed, what it answers, and how it refuses."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis
from dramatiq import Message

from relier.dlq import Place
from relier.envelope import stamp_first_hand, stamp_of
from relier.holds import park_actor, pause_queue
from relier.hooks import encode_failure
from relier.integrity import Integrity
from relier.store import Failure, Sending, Store
from relier_cli import dlq_files, dlq_release
from tests.cli.conftest import CommandLine, Tasks
from tests.processes import actors
from tests.servers import RedisServer

ACTORS = """
from relier import rl_actor

@rl_actor
def work(number, *, deep=False): pass
"""


@pytest.fixture(params=["embedded"])
def server(request: pytest.FixtureRequest) -> RedisServer:
    """One kind of server will do: what the commands ask of it has tests of its own."""
    return request.getfixturevalue("servers").store(request.param)  # type: ignore[no-any-return]


def die(tasks: Tasks, number: int = 0, *, kind: str = "ValueError", **more: Any) -> str:
    """Let a task fail for good that a producer sent; returns its id."""
    message = stamp_first_hand(Message("default", "work", (number,), {}, {}))
    Integrity().seal(message)
    stamp = stamp_of(message)
    fields: dict[str, Any] = {"queue": "default", "actor": "work", "body": message.encode(), **more}
    sending = Sending(stamp.task_id, stamp.shard, **fields)
    fence = tasks.store.tasks.claim(tasks.worker, sending, b"n", 0, slot_free=True).fence
    failure = Failure(False, 0.0, True, False, kind, encode_failure(ValueError("no")), f"{kind}: no", f"of {kind}")
    assert tasks.store.tasks.fail(tasks.worker, sending, fence, failure) == "dead"
    return stamp.task_id


def ids(listing: Any) -> list[str]:
    return [letter["id"] for letter in listing["dead_letters"]]


def test_nobody_else_can_open_an_exported_file_before_it_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who opened it then would read on."""
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    before = os.umask(0)
    try:
        with dlq_files._opened(tmp_path / "letters"):
            assert (tmp_path / "letters").stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, redis.ConnectionError])
def test_what_was_done_is_told_when_it_does_not_come_to_its_end(
    error: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    class Dead:
        def release_all(self, places: list[Place], *, told: Any) -> None:
            told(dict.fromkeys(places, "released"))
            raise error

    with pytest.raises(error):
        dlq_release._go(Dead(), "release_all", [Place(0, 0, "a")], Counter(), True)  # type: ignore[arg-type]
    assert "Interrupted: 1 released." in capsys.readouterr().err


def test_lists_and_groups_take_filters(rl: CommandLine, tasks: Tasks) -> None:
    first, second = die(tasks, kind="KeyError"), die(tasks, kind="KeyError", queue="other")
    third = die(tasks)

    listing = rl.json("dlq", "list", "--reason", "KeyError", "--since", "1h")
    assert (ids(listing), listing["matching"], listing["total"]) == ([second, first], 2, 3)
    assert ids(rl.json("dlq", "list", "--queue", "other", "--fingerprint", "of Key")) == [second]
    assert ids(rl.json("dlq", "list", "--until", "1h")) == []
    assert "1 of 3 dead letters; 2 match" in rl("dlq", "list", "--reason", "KeyError", "--limit", "1").stdout

    found = rl.json("dlq", "groups")
    assert [(g["fingerprint"], g["count"], g["trend"]) for g in found["groups"]] == [
        ("of KeyError", 2, "rising"),
        ("of ValueError", 1, "rising"),
    ]
    assert found["groups"][1]["sample_id"] == third
    text = rl("dlq", "groups", "--limit", "1").stdout
    assert "rising (0 → 2)" in text
    assert "1 of 2 groups; 3 dead letters" in text


def test_a_dry_run_tells_who_would_run_what_and_changes_nothing(rl: CommandLine, tasks: Tasks) -> None:
    told = {"role": "worker", "host": "here", "pid": 1, "queues": ["default"], "actors": "digest"}
    tasks.store.fleet.register(tasks.worker, told, {"work": 2})
    die(tasks)
    die(tasks, payload_version=3)
    die(tasks, queue="other")
    die(tasks, actor="gone")

    plan = rl.json("dlq", "retry-all", "--dry-run")

    assert (plan["dry_run"], plan["matching"]) == (True, 4)
    seen = {(p["actor"], p["queue"], p["payload_version"]): (p["runs_as"], p["waits_for"]) for p in plan["plan"]}
    assert seen == {
        ("work", "default", 1): (2, None),
        ("work", "default", 3): (None, "newer version"),
        ("work", "other", 1): (None, "no consumer"),
        ("gone", "default", 1): (None, "unknown actor"),
    }
    text = rl("dlq", "retry-all", "--dry-run", "--queue", "default").stdout
    assert "migrated to version 2, then runs" in text
    assert "waits: unknown actor" in text
    assert text.endswith("3 dead letters would be released.\n")
    assert tasks.store.live()["dead_letters"] == 4


def test_all_that_fit_are_released(rl: CommandLine, tasks: Tasks) -> None:
    for number in range(3):
        die(tasks, number)
    die(tasks, kind="KeyError")

    assert rl.json("dlq", "retry-all", "--reason", "ValueError", "--limit", "2") == {
        "dry_run": False,
        "matching": 2,
        "released": 2,
        "skipped": {},
        "left": 0,
        "canary": None,
    }
    assert rl("dlq", "retry-all", "--actor", "nobody").stdout == "0 of 0 dead letters released.\n"
    assert tasks.store.live()["dead_letters"] == 2


def test_a_canary_that_does_not_complete_keeps_the_others_where_they_are(rl: CommandLine, tasks: Tasks) -> None:
    first, _ = die(tasks, 1), die(tasks, 2)
    done = rl("dlq", "retry-all", "--canary", "--canary-timeout", "0")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"canary {first}: scheduled",
        "1 of 2 dead letters released.",
        f"The canary did not complete, so no other was released: rl tasks inspect {first}",
    ]
    assert tasks.store.live()["dead_letters"] == 1


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"queue": "other"}, "no consumer. Nothing was released."),
        ({"actor": "gone"}, "unknown actor. Nothing was released."),
        ({"payload_version": 3}, "newer version. Nothing was released."),
        ({"queue": "low_priority"}, "paused. Nothing was released. To let it go on: rl queue resume low_priority"),
        ({"actor": "broken"}, "parked. Nothing was released. To let it go on: rl queue resume --actor broken"),
    ],
)
def test_a_canary_that_nobody_could_run_is_not_released(
    rl: CommandLine, tasks: Tasks, more: dict[str, Any], why: str
) -> None:
    queues = ["default", "low_priority"]
    told = {"role": "worker", "host": "here", "pid": 1, "queues": queues, "actors": "digest"}
    tasks.store.fleet.register(tasks.worker, told, {"work": 2, "broken": 1})
    pause_queue(tasks.store, "low_priority", "a test")
    park_actor(tasks.store, "broken", "a test")
    letter = die(tasks, **more)
    done = rl("dlq", "retry-all", "--canary")
    assert done.returncode == 1
    assert done.stderr.startswith(f"The canary {letter} of ")
    assert done.stderr.endswith(f" would wait: {why}\n")
    assert tasks.store.live()["dead_letters"] == 1


def test_without_a_canary_nothing_is_released(rl: CommandLine, tasks: Tasks) -> None:
    """The only letter's last hooks are still to run."""
    sending, fence = tasks.running()
    failure = Failure(False, 0.0, True, True, "ValueError", b"", "no")
    assert tasks.store.tasks.fail(tasks.worker, sending, fence, failure) == "dead"
    done = rl("dlq", "retry-all", "--canary")
    assert done.returncode == 1
    assert (
        f"None of them can be released now, so no other was released: rl tasks inspect {sending.task_id}" in done.stdout
    )
    assert rl("dlq", "retry-all").stdout.splitlines() == [
        "1 not released: its callbacks are not done yet, try again",
        "0 of 1 dead letters released.",
    ]


def test_a_purge_wants_to_be_meant(rl: CommandLine, tasks: Tasks) -> None:
    die(tasks)
    refused = rl("dlq", "purge", "--yes"), rl("dlq", "purge", "--all")
    assert [done.returncode for done in refused] == [2, 2]
    assert "--all for all dead letters" in refused[0].stderr
    assert "Add --yes to do it" in refused[1].stderr
    told = rl("dlq", "purge", "--all", "--dry-run").stdout
    assert "1 dead letters would be discarded." in told
    assert "THEN" not in told  # What they would meet if they ran.
    assert tasks.store.live()["dead_letters"] == 1

    purged = rl.json("dlq", "purge", "--all", "--yes")
    assert purged == {"dry_run": False, "matching": 1, "purged": 1, "skipped": {}, "left": 0}
    assert tasks.store.counters()["discarded:purged"] == 1


def test_letters_go_to_a_file_and_back(rl: CommandLine, store: Store, tasks: Tasks) -> None:
    made = [die(tasks, number) for number in range(3)]
    file = rl.folder / "letters.jsonl"

    assert rl.json("dlq", "export", "-o", str(file)) == {"exported": 3, "file": str(file)}
    assert [json.loads(line)["id"] for line in file.read_text().splitlines()] == made
    assert rl("dlq", "export").stdout == file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    again = rl("dlq", "export", "-o", str(file))
    assert (again.returncode, again.stderr) == (1, f"The file {file} cannot be written: File exists.\n")

    rl("dlq", "purge", "--all", "--yes")
    _break_line(file, 2)
    looked = rl("dlq", "import", str(file), "--dry-run")
    assert (looked.returncode, looked.stdout.splitlines()[-1]) == (1, "2 lines are in order, 1 are bad.")
    taken = rl.json("dlq", "import", str(file))
    assert (taken["imported"], taken["exists"], taken["known"], taken["bad"]) == (2, 0, 0, 1)
    assert taken["bad_lines"][0]["line"] == 2
    assert taken["bad_lines"][0]["why"].startswith("its payload is refused")
    repeated = rl("dlq", "import", str(file))
    assert repeated.returncode == 1
    assert "0 dead letters imported; 2 are dead letters here already" in repeated.stdout
    assert ids(rl.json("dlq", "list")) == [made[2], made[0]]


def _break_line(file: Path, number: int) -> None:
    """Change an argument in the payload of one line."""
    import base64

    lines = file.read_text().splitlines()
    line = json.loads(lines[number - 1])
    payload = base64.b64decode(line["payload_base64"]).replace(b'"args":[1]', b'"args":[9]')
    lines[number - 1] = json.dumps({**line, "payload_base64": base64.b64encode(payload).decode()})
    file.write_text("\n".join(lines) + "\n")


def test_files_that_are_not_there_are_told_of(rl: CommandLine) -> None:
    done = rl("dlq", "import", "nowhere.jsonl")
    assert (done.returncode, done.stderr) == (1, "The file nowhere.jsonl cannot be read: No such file or directory.\n")
    assert rl("dlq", "export", "--json").returncode == 2


def test_other_arguments_are_compared_with_the_actors_parameters(rl: CommandLine, tasks: Tasks) -> None:
    letter = die(tasks, 1)
    module = actors(rl.folder, ACTORS)
    refused = rl("dlq", "release", letter, "--args", "[]", actors=module)
    assert refused.returncode == 1
    assert refused.stderr == "work(number, *, deep=False): missing a required argument: 'number'.\n"
    done = rl("dlq", "release", letter, "--args", "[2]", "--kwargs", '{"deep": true}', "--json", actors=module)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == [{"id": letter, "outcome": "released", "unchecked": None}]
    record = tasks.store.record(letter)
    assert record is not None
    assert Message[Any].decode(record.body).args == (2,)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("release", "a", "--args", "[1"), "this is no JSON"),
        (("release", "a", "--args", "{}"), "a JSON list is wanted"),
        (("release", "a", "--kwargs", "[]"), "a JSON object is wanted"),
        (("release", "a", "b", "--args", "[]"), "one letter at a time"),
        (("list", "--since", "soon"), "'soon' is neither so long ago"),
    ],
)
def test_misuse_is_told_before_anything_is_done(rl: CommandLine, words: tuple[str, ...], why: str) -> None:
    done = rl("dlq", *words)
    assert done.returncode == 2
    assert why in " ".join(done.stderr.split())


def test_a_filter_that_no_letter_has_tells_which_there_are(rl: CommandLine, tasks: Tasks) -> None:
    die(tasks, actor="charge")
    die(tasks, actor="mail", kind="KeyError", queue="other")
    said = "No dead letter has the actor 'chrage'; there are: charge, mail.\n"
    commands = ["list"], ["groups"], ["retry-all"], ["retry-all", "--dry-run"], ["purge", "--yes"], ["export"]
    for command in commands:
        done = rl("dlq", *command, "--actor", "chrage")
        assert (done.returncode, done.stderr.removesuffix("0 dead letters exported.\n")) == (0, said), command
    both = rl("dlq", "list", "--queue", "othr", "--reason", "keyerror").stderr
    assert both.splitlines() == [
        "No dead letter has the queue 'othr'; there are: default, other.",
        "No dead letter has the reason 'keyerror'; there are: KeyError, ValueError.",
    ]
    mistyped = rl("dlq", "list", "--fingerprint", "no-such").stderr
    assert mistyped.startswith("No dead letter has the fingerprint 'no-such'; there are: ")
    assert mistyped.count(",") == 1
    known = mistyped.partition("there are: ")[2].partition(",")[0]
    assert rl("dlq", "list", "--fingerprint", known[:6]).stderr == ""
    assert rl("dlq", "list", "--actor", "charge", "--reason", "KeyError").stderr == ""  # Both are right.
    rl("dlq", "purge", "--all", "--yes")
    assert rl("dlq", "list", "--actor", "chrage").stderr == ""


def test_a_time_that_ends_before_it_begins_is_misuse(rl: CommandLine) -> None:
    for command in (["list"], ["export", "-o", "letters.jsonl"]):
        done = rl("dlq", *command, "--since", "1h", "--until", "2h")
        assert done.returncode == 2
        assert "--since is later than --until" in " ".join(done.stderr.split())
    assert not (rl.folder / "letters.jsonl").exists()
