"""Dead letters, many at once: reading them by page, releasing them, discarding them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from relier.store import Failure, Verdict, letters
from relier.store.letter_entries import arguments_of, read_entries
from relier.store.letters import Letters, Place, Wanted
from tests.store.desk import NOW, SHARD, Desk


def of(desk: Desk) -> Letters:
    desk.store.letters.clock = desk.tasks.clock
    return desk.store.letters


def dead(desk: Desk, task: str, fingerprint: str = "print", reason: str = "ValueError", **more: object) -> None:
    sending = dataclasses.replace(desk.sending(task), **more)  # type: ignore[arg-type]
    claim = desk.tasks.claim("w5", sending, b"n", 0, slot_free=True)
    failure = Failure(False, 0.0, True, False, reason, b"encoded", f"{reason}: no {task}", fingerprint)
    assert desk.tasks.fail("w5", sending, claim.fence, failure) == "dead"


def ids(places: list[Place]) -> list[str]:
    return [place.task_id for place in places]


def place(desk: Desk, task: str = "t") -> Place:
    (found,) = [place for place in of(desk).places(Wanted()) if place.task_id == task]
    return found


# -- reading ----------------------------------------------------------------------------------------------------------


def test_letters_are_read_oldest_first_whatever_the_pages_are(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among them many that died at the same microsecond, as those do that one script makes."""
    monkeypatch.setattr(letters, "PAGE", 7)
    made = []
    for number in range(40):
        if number < 5 or number > 35:
            desk.wait(1)
        dead(desk, f"t{number:02}")
        made.append(f"t{number:02}")

    assert ids(of(desk).places(Wanted())) == made
    assert ids(of(desk).newest(3)) == made[:-4:-1]
    (group,) = of(desk).groups(Wanted())
    assert group.count == 40
    assert (of(desk).count(), of(desk).plan(Wanted())[0].letters) == (40, 40)


def test_each_filter_must_fit(desk: Desk) -> None:
    dead(desk, "a", "aabb", actor="one")
    dead(desk, "b", "aacc", actor="two")
    desk.wait(10)
    dead(desk, "c", "dd", "KeyError", queue="other", payload_version=3)

    def found(**given: object) -> list[str]:
        return ids(of(desk).places(Wanted(**given)))  # type: ignore[arg-type]

    assert (found(actor="one"), found(queue="other"), found(reason="KeyError")) == (["a"], ["c"], ["c"])
    assert (found(fingerprint="aa"), found(fingerprint="aac"), found(actor="one", queue="other")) == (
        ["a", "b"],
        ["b"],
        [],
    )
    assert (found(since=NOW / 1e6 + 5), found(until=NOW / 1e6 + 5)) == (["c"], ["a", "b"])
    assert [tuple(planned) for planned in of(desk).plan(Wanted(reason="KeyError"))] == [("act", "other", 3, 1)]


def test_a_group_tells_when_it_began_its_last_letter_and_whether_it_gets_worse(desk: Desk) -> None:
    dead(desk, "old")
    desk.wait(5000)
    dead(desk, "before")
    desk.wait(3000)
    for task in ("x", "y"):
        dead(desk, task)
    dead(desk, "z", "another", "KeyError")

    first, second = of(desk).groups(Wanted())

    assert (first.fingerprint, first.actor, first.reason, first.count) == ("print", "act", "ValueError", 4)
    assert (first.first_seen, first.last_seen) == (NOW / 1e6, NOW / 1e6 + 8000)
    assert (first.last_hour, first.hour_before, first.trend) == (3, 0, "rising")
    assert (first.sample_id, first.sample_message) == ("y", "ValueError: no y")
    assert (second.fingerprint, second.count) == ("another", 1)
    desk.wait(3600)
    assert [group.trend for group in of(desk).groups(Wanted())] == ["falling", "falling"]
    desk.wait(7200)
    assert [group.trend for group in of(desk).groups(Wanted())] == ["quiet", "quiet"]


def test_letters_that_an_earlier_version_left_without_a_summary_are_told_as_well(desk: Desk) -> None:
    dead(desk, "a", "aa")
    dead(desk, "b", "bb")
    summaries = of(desk).summaries(of(desk).newest(2))
    desk.client.delete(desk.store.keys.shard(SHARD, "")[0].removesuffix("rec") + "letters")

    assert of(desk).summaries(of(desk).newest(2)) == summaries
    assert ids(of(desk).places(Wanted(fingerprint="b"))) == ["b"]
    of(desk).purge(of(desk).places(Wanted()), "me")  # What is left fits together again.


def test_a_summary_tells_what_a_list_needs(desk: Desk) -> None:
    dead(desk, "t", "print", payload_version=2)
    (letter,) = of(desk).summaries([place(desk)])
    assert (letter.task_id, letter.shard, letter.died_at) == ("t", SHARD, NOW / 1e6)
    assert (letter.actor, letter.queue, letter.reason, letter.fingerprint) == ("act", "default", "ValueError", "print")
    assert (letter.attempts, letter.crashes, letter.payload_version) == (1, 0, 2)
    assert letter.message == "ValueError: no t"


# -- releasing --------------------------------------------------------------------------------------------------------


def test_released_letters_are_due_with_fresh_attempts_and_their_crashes(desk: Desk) -> None:
    desk.crash("w1")
    desk.fail(desk.claim("w2", seen=desk.published()).fence, "w2")
    dead(desk, "u")
    desk.wait(5)

    outcomes = of(desk).release(of(desk).places(Wanted()), "me")

    assert set(outcomes.values()) == {"released"}
    record = desk.record()
    assert (record.state, record.attempt, record.crashes, record.outcome, record.reason) == ("s", 0, 1, "", "")
    assert (record.runs[-1].worker, record.runs[-1].outcome, record.runs[-1].ended_at) == (
        "me",
        "released",
        NOW / 1e6 + 5,
    )
    assert {due.task_id for due in desk.due()} == {"t", "u"}
    assert (desk.count("dead"), desk.count("dlq_left"), of(desk).count()) == (2, 2, 0)


def test_a_letter_is_released_once_however_often_that_is_asked_for(desk: Desk) -> None:
    dead(desk, "t")
    meant = place(desk)
    assert of(desk).release([meant], "me") == {meant: "released"}
    assert of(desk).release([meant], "me") == {meant: "gone"}
    assert desk.count("dlq_left") == 1


def test_a_letter_that_died_again_is_another_one(desk: Desk) -> None:
    dead(desk, "t")
    meant = place(desk)
    of(desk).release([meant], "me")
    fence = desk.claim("w2", seen=desk.published()).fence
    desk.wait(1)
    desk.fail(fence, "w2")

    assert of(desk).release([meant], "me") == {meant: "gone"}
    assert of(desk).purge([meant], "me") == {meant: "gone"}
    assert desk.state() == "d"


def test_a_released_poison_task_gets_one_run_each_time(desk: Desk) -> None:
    desk.run("w1", max_resurrections=0)
    desk.bury("w1")
    for number in range(2, 5):
        desk.wait(1)
        meant = place(desk)
        assert of(desk).release([meant], "me") == {meant: "released"}
        assert desk.claim(f"w{number}", seen=desk.published()).verdict is Verdict.GRANTED
        desk.bury(f"w{number}")
        assert (desk.state(), desk.record().crashes) == ("d", number)
        assert desk.record().reason == "max_resurrections_exceeded"


def test_a_letter_whose_last_hooks_are_not_done_waits_for_them(desk: Desk) -> None:
    fence = desk.run()
    desk.fail(fence, hooks=True)
    meant = place(desk)
    assert of(desk).release([meant], "me") == {meant: "pending"}
    assert of(desk).purge([meant], "me") == {meant: "pending"}
    desk.settle(fence, confirmed=True)
    assert of(desk).release([meant], "me") == {meant: "released"}


def test_what_is_no_letter_is_not_touched(desk: Desk) -> None:
    desk.run(task="t")
    for task, why in (("t", "gone"), ("nobody", "unknown")):
        meant = Place(0, SHARD, task)
        assert of(desk).release([meant], "me") == {meant: why}
        assert of(desk).purge([meant], "me") == {meant: why}
    assert desk.state() == "r"


# -- purging ----------------------------------------------------------------------------------------------------------


def test_a_purged_letter_has_ended_for_good(desk: Desk) -> None:
    dead(desk, "t")
    meant = place(desk)
    assert of(desk).purge([meant], "me") == {meant: "purged"}

    assert (desk.record().status, desk.record().reason) == ("discarded", "purged")
    assert of(desk).purge([meant], "me") == {meant: "gone"}
    assert (desk.count("discarded"), desk.count("discarded:purged"), desk.count("dlq_left")) == (1, 1, 1)
    assert desk.claim("w2").verdict is Verdict.SETTLED
    assert of(desk).count() == 0


# -- importing --------------------------------------------------------------------------------------------------------

JOB = "job-digest"


def letter_with_a_job_key(desk: Desk) -> list[tuple[int, tuple[Any, ...]]]:
    """Returns the exported letter, as `take_in` has it."""
    sending = desk.sending("t", job=JOB)
    desk.tasks.schedule(sending, 0)
    claim = desk.tasks.claim("w5", sending, b"n", desk.published(), slot_free=True)
    desk.tasks.fail("w5", sending, claim.fence, Failure(False, 0.0, True, False, "ValueError", b"", "no"))
    return [(SHARD, arguments_of(entry)) for entry in read_entries(of(desk), of(desk).places(Wanted()))]


def test_a_purged_letter_that_comes_back_has_its_job_key(desk: Desk) -> None:
    exported = letter_with_a_job_key(desk)
    of(desk).purge([place(desk)], "me")
    assert of(desk).take_in("me", exported) == ["imported"]
    (entry,) = desk.client.keys("*:job:*")
    assert desk.client.ttl(entry) == -1
    assert of(desk).release([place(desk)], "me").popitem()[1] == "released"


def test_in_another_store_too(desk: Desk) -> None:
    exported = letter_with_a_job_key(desk)
    desk.client.flushall()
    assert of(desk).take_in("me", exported) == ["imported"]
    assert of(desk).release([place(desk)], "me").popitem()[1] == "released"


def test_a_letter_that_comes_back_behind_a_newer_task_of_its_job_key_is_never_released(desk: Desk) -> None:
    exported = letter_with_a_job_key(desk)
    of(desk).purge([place(desk)], "me")
    desk.tasks.schedule(desk.sending("newer", job=JOB), 0)

    assert of(desk).take_in("me", exported) == ["imported"]
    assert of(desk).release([place(desk)], "me").popitem()[1] == "superseded"
    assert (desk.state("t"), desk.state("newer")) == ("d", "s")


def test_nobody_is_told_again_of_a_letter_that_comes_back(desk: Desk) -> None:
    whom = "default\nact\n1\n5"
    dead(desk, "t", on_dead=whom)
    told = desk.count("notices")
    exported = [(SHARD, arguments_of(entry)) for entry in read_entries(of(desk), of(desk).places(Wanted()))]
    of(desk).purge([place(desk)], "me")
    assert of(desk).take_in("me", exported) == ["imported"]
    assert (told, desk.count("notices")) == (1, 1)
    of(desk).release([place(desk)], "me")
    desk.wait(1)
    desk.fail(desk.claim("w4", seen=desk.published(), on_dead=whom).fence, "w4")
    assert desk.count("notices") == 2
