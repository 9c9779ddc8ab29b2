"""The summaries of dead letters: each letter has one, as long as it is one, that tells what lists and filters need."""

from __future__ import annotations

import json

import pytest

from relier.hooks import encode_failure
from relier.store import Failure, Parking
from tests.store.desk import NOW, SECOND, SHARD, Desk

_READ = """
local out = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local summary = cmsgpack.unpack(all[i + 1])
  summary[6] = string.format('%.0f', summary[6])
  out[all[i]] = summary
end
return cjson.encode(out)
"""


def _summaries(desk: Desk) -> dict[str, list[object]]:
    found: dict[str, list[object]] = json.loads(desk.client.eval(_READ, 1, desk.store.keys.letters(SHARD)))
    return found


def test_a_dead_letter_has_a_summary(desk: Desk) -> None:
    fence = desk.run()

    desk.fail(fence)

    summary = [1, "act", "default", "ValueError", "print", str(NOW), 1, 0, 1, "ValueError: no", NOW // SECOND]
    assert _summaries(desk) == {"t": summary}


@pytest.mark.parametrize(
    "text, told",
    [("two\n lines", "two lines"), ("e" * 500, "e" * 120), ("é" * 61, "é" * 59)],
)
def test_a_summary_tells_the_beginning_of_a_long_text_on_one_line(desk: Desk, text: str, told: str) -> None:
    fence = desk.run()

    desk.tasks.fail("w1", desk.sending(), fence, Failure(False, 0.0, True, False, "ValueError", b"", text))

    assert _summaries(desk)["t"][9] == told


def test_a_letter_of_a_task_that_never_ran_tells_its_failure(desk: Desk) -> None:
    error = LookupError("No actor.")
    desk.tasks.dead_letter(desk.sending(task="never"), "ActorNotFound", encode_failure(error))
    desk.tasks.dead_letter(desk.sending(task="foreign"), "ActorNotFound", b"\x80 of another encoder")
    desk.tasks.schedule(desk.sending(task="parked"), 0)
    parked = [(due, Parking("unknown actor", 0.0, encode_failure(error))) for due in desk.due()]
    desk.tasks.park(parked, 600.0)

    told = {task: summary[9] for task, summary in _summaries(desk).items()}

    assert told == {"never": "LookupError: No actor.", "foreign": "", "parked": "LookupError: No actor."}


def test_a_letter_of_crashes_tells_how_many(desk: Desk) -> None:
    desk.claim("w1", max_resurrections=1)
    desk.bury("w1")
    desk.claim("w2", seen=desk.record().fence, max_resurrections=1)

    desk.bury("w2")

    _, _, _, reason, *_, crashes, _, message, _ = _summaries(desk)["t"]
    assert (reason, crashes, message) == ("max_resurrections_exceeded", 2, "Its worker died 2 times.")


def test_who_leaves_the_dlq_has_no_summary(desk: Desk) -> None:
    for task in ("released", "cancelled", "newer", "adopted"):
        desk.fail(desk.run(task=task), task=task)
    assert len(_summaries(desk)) == 4

    desk.tasks.hold("released", "release", "somebody", SHARD)
    desk.tasks.hold("cancelled", "cancel", "somebody", SHARD)
    desk.claim(task="newer", seen=NOW + 60 * SECOND)
    desk.tasks.adopt("w1", desk.sending(task="adopted"), NOW + 120 * SECOND)

    assert _summaries(desk) == {}
