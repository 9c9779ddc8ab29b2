"""Who is to be told of a dead letter gets a notice: a task of its own, made in the same step, once for each death."""

from __future__ import annotations

import json
import re
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relier.dead_letters import dead_record
from relier.envelope import stamp_of
from relier.errors import PayloadIntegrityError
from relier.hooks import encode_failure
from relier.integrity import Integrity
from relier.notices import message_of
from relier.store import Due, Failure, Parking, Sending
from relier.store.notices import is_notice, read_notice
from tests.store.desk import NOW, SECOND, SHARD, Desk
from tests.store.look import inconsistencies, look

TOLD = "mails\ntell\n2\n3"


def sending(task: str = "t", **more: Any) -> Sending:
    return Sending(task, SHARD, "default", "act", b"body of " + task.encode(), **{"on_dead": TOLD, **more})


def claimed(desk: Desk, task: str = "t", worker: str = "w1", seen: int = 0, **more: Any) -> int:
    return desk.tasks.claim(worker, sending(task, **more), task.encode(), seen, slot_free=True).fence


def failed(desk: Desk, fence: int, task: str = "t") -> None:
    failure = Failure(
        False, 0.0, True, False, "ValueError", encode_failure(ValueError("é:\n1")), "ValueError: é", "abc"
    )
    desk.tasks.fail("w1", sending(task), fence, failure)


def notices(desk: Desk) -> list[Due]:
    return [due for due in desk.due() if due.task_id.startswith("t.dead.")]


def test_a_notice_is_due_at_once_and_tells_all_that_is_kept(desk: Desk) -> None:
    fence = claimed(desk)
    desk.wait(2)

    failed(desk, fence)

    (notice,) = notices(desk)
    assert (notice.task_id, notice.queue, notice.actor, notice.payload_version) == (
        f"t.dead.{fence}",
        "mails",
        "tell",
        2,
    )
    assert desk.record(notice.task_id).max_resurrections == 3
    letter, died_at = read_notice(notice.body)
    assert died_at == (NOW + 2 * SECOND) / 1e6
    assert dead_record(letter, died_at) == dead_record(desk.record(), died_at)
    assert dead_record(letter, died_at)["exception"]["message"] == "é:\n1"
    assert desk.count("notices") == 1


def test_every_way_into_the_dlq_is_told(desk: Desk) -> None:
    desk.tasks.schedule(sending("t.parked"), 0)
    desk.tasks.park([(due, Parking("unknown actor", 0.0, b"why")) for due in desk.due()], 600.0)
    desk.tasks.dead_letter(sending("t.refused"), "ActorNotFound", b"")
    claimed(desk, "t.crashed", max_resurrections=0)
    desk.bury("w1")
    failed(desk, claimed(desk, "t.failed", "w2"), "t.failed")
    desk.tasks.decline("w2", sending("t.declined"), 0)
    (declined,) = [due for due in desk.due() if due.task_id == "t.declined"]
    desk.tasks.park([(declined, Parking("unknown actor", 0.0, b"why"))], 600.0)

    told = sorted(read_notice(due.body)[0].task_id for due in desk.due())

    assert told == ["t.crashed", "t.declined", "t.failed", "t.parked", "t.refused"]


def test_a_death_is_told_once_and_the_next_one_again(desk: Desk) -> None:
    fence = claimed(desk)
    failed(desk, fence)
    failed(desk, fence)
    assert len(notices(desk)) == 1

    desk.tasks.hold("t", "release", "somebody", SHARD)
    fence = claimed(desk, seen=desk.record().fence)
    failed(desk, fence)

    fences = [read_notice(due.body)[0].fence for due in notices(desk)]
    assert fence in fences and len(set(fences)) == 2


def test_a_notice_outlives_the_letter_that_it_tells_of(desk: Desk) -> None:
    failed(desk, claimed(desk))

    desk.tasks.hold("t", "cancel", "somebody", SHARD)

    (notice,) = notices(desk)
    assert read_notice(notice.body)[0].reason == "ValueError"


def test_from_its_first_claim_on_a_notice_has_its_message(desk: Desk) -> None:
    failed(desk, claimed(desk))
    (notice,) = notices(desk)

    claim = desk.tasks.claim(
        "w1", Sending(notice.task_id, SHARD, "mails", "tell", b"its message"), b"n", notice.fence, slot_free=True
    )

    assert claim.verdict == "granted"
    assert desk.record(notice.task_id).body == b"its message"


def test_a_notice_that_dies_tells_nobody(desk: Desk) -> None:
    failed(desk, claimed(desk))
    (notice,) = notices(desk)
    own = Sending(notice.task_id, SHARD, "mails", "tell", b"its message", on_dead=TOLD)
    fence = desk.tasks.claim("w1", own, b"n", notice.fence, slot_free=True).fence

    desk.tasks.fail("w1", own, fence, Failure(False, 0.0, True, False, "ValueError", b"", ""))

    assert desk.due() == []
    assert desk.count("notices") == 1


def test_without_on_dead_nobody_is_told(desk: Desk) -> None:
    desk.fail(desk.run())

    assert desk.due() == []


def test_who_runs_a_task_decides_who_is_told(desk: Desk) -> None:
    fence = claimed(desk)
    desk.tasks.fail("w1", sending(), fence, Failure(True, 0.0, True, False, "ValueError", b"", ""))
    claim = desk.tasks.claim("w1", sending(on_dead=""), b"again", desk.record().fence, slot_free=True)

    failed(desk, claim.fence)

    assert desk.due() == []


def test_the_message_is_the_same_each_time(desk: Desk) -> None:
    failed(desk, claimed(desk))
    (notice,) = notices(desk)

    first, second = message_of(notice, Integrity()), message_of(notice, Integrity())

    assert first == second
    assert first.message_id == stamp_of(first).task_id == notice.task_id
    assert stamp_of(first).shard == SHARD
    assert json.dumps(first.args[0])
    assert Integrity().examine(first)


def test_every_field_of_the_dead_record_is_documented(desk: Desk) -> None:
    failed(desk, claimed(desk))
    (notice,) = notices(desk)
    page = (Path(__file__).parents[2] / "docs" / "dead-letters.md").read_text("utf-8")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page.partition("## Being told")[0], re.MULTILINE)

    fields = {name for row in rows for name in re.findall(r"`(\w+)`", row)}

    assert fields == {"raw_base64", *dead_record(*read_notice(notice.body))}


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_broken_notice_is_refused(desk: Desk, cut: int) -> None:
    failed(desk, claimed(desk))
    (notice,) = notices(desk)
    assert is_notice(notice.body)

    with pytest.raises(PayloadIntegrityError):
        read_notice(notice.body[:-cut])


STEPS = ("run", "fail", "fail again", "crash", "cancel", "release", "expire", "publish")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from(STEPS), max_size=25))
def test_there_is_one_notice_for_each_death_whatever_happens(client: redis.Redis, steps: list[str]) -> None:
    client.flushall()
    desk = Desk(client)
    fence, workers, deaths = 0, count(1), set()
    for step in steps:
        record = desk.find()
        worker = f"w{next(workers)}"
        if step == "run" and (record is None or record.state == "s"):
            fence = claimed(desk, worker=worker, seen=record.fence if record else 0, max_resurrections=1)
        elif step in ("fail", "fail again") and fence:
            failed(desk, fence)
        elif step == "crash" and record is not None and record.state == "r":
            desk.bury(record.owner)
        elif step in ("cancel", "release"):
            desk.tasks.hold("t", step, "somebody", SHARD)
        elif step == "expire":
            desk.wait(100)
            desk.tasks.expire_letters([SHARD], 50)
        elif step == "publish":
            desk.tasks.mark_published(desk.due(), 30.0, 1800.0)
        after = desk.find()
        if after is not None and after.state == "d":
            deaths.add(after.fence)

    found = [str(key, "utf-8") for key in desk.store.runner.command("HKEYS", desk.store.keys.shard(SHARD, "")[0])]
    assert {int(name.rpartition(".")[2]) for name in found if name.startswith("t.dead.")} == deaths
    assert desk.count("notices") == desk.count("dead") == len(deaths)
    assert not inconsistencies(look(desk.store, [SHARD], [f"w{n}" for n in range(1, 30)]))
    desk.store.runner.close()
