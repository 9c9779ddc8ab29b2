"""What was added to records: an earlier version that shares the store does not know it, and must hand it on."""

from __future__ import annotations

from typing import Any

import pytest

from relier.store.verdicts import JobTerms
from tests.store.desk import SHARD, Desk

#: How the version before statistics and traces reads a record and writes it back: it knows the fields up to 29, and
#: leaves out those at the end that say nothing.
EARLIER = """
local ADDED = { [25] = 0, [26] = 0, [27] = '', [28] = '', [29] = 0 }
local rec = cmsgpack.unpack(redis.call('HGET', KEYS[1], ARGV[1]))
for field = #rec + 1, 29 do rec[field] = ADDED[field] end
for field = 1, 29 do if rec[field] == nil then return redis.error_reply('a gap at ' .. field) end end
local last = 29
while last >= 25 and rec[last] == ADDED[last] do
  rec[last] = nil
  last = last - 1
end
redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(rec))
return 'saved'
"""


def written_by_an_earlier_version(desk: Desk) -> None:
    for _ in range(2):
        assert desk.client.eval(EARLIER, 1, desk.store.keys.shard(SHARD, "")[0], "t") == b"saved"


@pytest.mark.parametrize("more", [{}, {"job": "digest"}, {"on_dead": "q\na\n1\n5"}], ids=["plain", "job", "on_dead"])
def test_a_published_and_traced_record_survives_an_earlier_version(desk: Desk, more: dict[str, Any]) -> None:
    if more:
        desk.tasks.push_many([(desk.sending(**more), JobTerms(5.0))])
    else:
        desk.tasks.schedule(desk.sending(), 5.0)
    desk.wait(6.0)
    fence = desk.published()
    written_by_an_earlier_version(desk)

    claim = desk.claim(seen=fence, span="first", **more)
    written_by_an_earlier_version(desk)

    assert claim.fence
    assert desk.record().identical == 0
    assert desk.fail(claim.fence, retry=True, limit=3) == "retry"
    desk.wait(9.0)
    again = desk.published()
    written_by_an_earlier_version(desk)
    assert desk.claim("w2", seen=again, span="second", **more).span == "first"
