"""A look at all that the store keeps in a few shards, in one round trip, for tests to judge."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from relier.store import Store
from relier.store.keys import CLOCKS
from relier.store.scripts import Script
from relier.store.statistics import SHORT

_LOOK = """
local records = {}
for _, id in ipairs(redis.call('HKEYS', REC)) do
  local rec = load(id)
  records[#records + 1] = { id, rec[STATE], int(rec[FENCE]), rec[OWNER], rec[STICKY] and 1 or 0,
    rec[SUSPECT] and 1 or 0, rec[ATTEMPT], rec[CRASHES], rec[OUTCOME], rec[FINGERPRINT],
    rec[ALIKE], asked_to_end(rec) and 1 or 0, redis.call('HGET', REC, id), rec[QUEUE] .. '\\n' .. rec[ACTOR] }
end
local noted = {}
for _, hash in ipairs({ 'st:all', 'st' }) do
  for i, packed in ipairs(redis.call('HGETALL', string.sub(REC, 1, -4) .. hash)) do
    if i % 2 == 0 then
      local entry = noted[#noted][1]
      for code, n in pairs(cmsgpack.unpack(packed)) do
        if code ~= 0 then noted[#noted + 1] = { entry, code, n } end
      end
    else
      noted[#noted + 1] = { packed, 0, 0 }
    end
  end
end
local owned = {}
for i = 2, #ARGV do owned[i - 1] = redis.call('ZRANGE', own_key(ARGV[i]), 0, -1) end
return { records, redis.call('ZRANGE', DUE, 0, -1, 'WITHSCORES'), redis.call('ZRANGE', DLQ, 0, -1),
  redis.call('ZRANGE', DEAD, 0, -1), redis.call('HGETALL', META), owned, redis.call('ZRANGE', END, 0, -1),
  redis.call('HKEYS', string.sub(REC, 1, -4) .. 'letters'),
  redis.call('HVALS', string.sub(REC, 1, -4) .. 'letters:by'), noted }
"""


def _script() -> Script:
    includes = files("relier.store") / "lua" / "include"
    source = "".join((includes / f"{name}.lua").read_text("utf-8") for name in ("clock", "record")) + _LOOK
    return Script("look", source, hashlib.sha1(source.encode()).hexdigest())


_SCRIPT = _script()


@dataclass(frozen=True, slots=True)
class Seen:
    """One record as it is kept; `packed` tells whether anything changed in it."""

    state: str
    fence: int
    owner: str
    sticky: bool
    suspect: bool
    attempt: int
    crashes: int
    outcome: str
    fingerprint: str
    identical: int
    is_cancelled: bool
    packed: bytes
    #: Its queue and actor, as statistics name them.
    entry: str = ""


@dataclass(slots=True)
class Look:
    """Everything in some shards at one moment. `owned` and `dead` are by shard."""

    records: dict[str, Seen] = field(default_factory=dict)
    due: dict[str, int] = field(default_factory=dict)
    letters: set[str] = field(default_factory=set)
    summaries: set[str] = field(default_factory=set)
    letters_counted: int = 0
    remembered: set[str] = field(default_factory=set)
    dead: dict[int, set[str]] = field(default_factory=dict)
    floors: dict[int, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    owned: dict[tuple[int, str], set[str]] = field(default_factory=dict)
    #: The statistics of all time, by entry: each code's number.
    noted: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))


def look(store: Store, shards: Iterable[int], workers: Iterable[str]) -> Look:
    """Look at some shards, and at what these workers own there."""
    shards, workers = list(shards), list(workers)
    replies = store.runner.run_many([(_SCRIPT, store.keys.shard(s, ""), ("", *workers)) for s in shards])
    seen = Look()
    for shard, reply in zip(shards, replies, strict=True):
        _add(seen, shard, workers, reply)
    return seen


def _add(seen: Look, shard: int, workers: list[str], reply: Any) -> None:
    records, due, letters, dead, meta, owned, remembered, summaries, kinds, noted = reply
    for task_id, state, fence, owner, sticky, suspect, attempt, crashes, outcome, prints, row, asked, *kept in records:
        seen.records[task_id.decode()] = Seen(
            state.decode(),
            int(fence),
            owner.decode(),
            sticky=bool(sticky),
            suspect=bool(suspect),
            attempt=attempt,
            crashes=crashes,
            outcome=outcome.decode(),
            fingerprint=prints.decode(),
            identical=row,
            is_cancelled=bool(asked),
            packed=kept[0],
            entry=kept[1].decode(),
        )
    for entry, code, n in noted:
        name = code.decode() if isinstance(code, bytes) else SHORT.get(code, str(code))
        seen.noted[entry.decode()][name] += n
    seen.due.update((task_id.decode(), int(float(at))) for task_id, at in zip(due[::2], due[1::2], strict=True))
    seen.letters |= {task_id.decode() for task_id in letters}
    seen.summaries |= {task_id.decode() for task_id in summaries}
    seen.letters_counted += sum(map(int, kinds))
    seen.remembered |= {task_id.decode() for task_id in remembered}
    seen.dead[shard] = {worker.decode() for worker in dead}
    seen.owned.update(((shard, w), {t.decode() for t in ids}) for w, ids in zip(workers, owned, strict=True) if ids)
    for name, value in zip(meta[::2], meta[1::2], strict=True):
        if name == b"floor":
            seen.floors[shard] = int(value)
        elif name not in CLOCKS:
            seen.counters[name.decode()] = seen.counters.get(name.decode(), 0) + int(value)


def inconsistencies(seen: Look) -> list[str]:
    """Name what does not fit together between records, indexes and counters."""
    found = []
    for task_id, record in seen.records.items():
        owning = record.state in "rh" and record.owner != ""
        holders = {worker for (_, worker), ids in seen.owned.items() if task_id in ids}
        if holders != ({record.owner} if owning else set()):
            found.append(f"{task_id} is in the own sets of {holders}, its record says {record}")
        if (record.owner == "") != (record.state in "sed" or (record.state == "h" and task_id in seen.due)):
            found.append(f"{task_id} has the wrong owner: {record}")
        if (task_id in seen.remembered) != (record.state == "e"):
            found.append(f"{task_id} is {'' if task_id in seen.remembered else 'not '}remembered: {record}")
        if (task_id in seen.due) != (record.state == "s" or (record.state == "h" and not record.owner)):
            found.append(f"{task_id} is {'' if task_id in seen.due else 'not '}due: {record}")
        if (task_id in seen.letters) != (record.state == "d" or (record.state == "h" and record.outcome == "dead")):
            found.append(f"{task_id} is {'' if task_id in seen.letters else 'not '}in the DLQ: {record}")
        if record.state in "rs" and record.outcome:
            found.append(f"{task_id} has not ended, but has an outcome: {record}")
    if seen.letters != seen.summaries:
        found.append(f"dead letters {seen.letters}, but summaries of {seen.summaries}")
    for what, ids in (
        ("due", set(seen.due)),
        ("a dead letter", seen.letters),
        ("owned", set().union(*seen.owned.values())),
    ):
        found += [f"{task_id} is {what} without a record" for task_id in ids - seen.records.keys()]
    return found + _miscounted(seen) + _misnoted(seen)


def _miscounted(seen: Look) -> list[str]:
    """Everything accepted has exactly one end, or is still to get one."""
    count = seen.counters.get
    letters = count("dead", 0) - count("dlq_left", 0)
    unended = sum(record.state in "sr" for record in seen.records.values())
    ended = count("completed", 0) + count("discarded", 0) + letters
    found = []
    if count("accepted", 0) != ended + unended:
        found.append(f"accepted is not ended + un-ended ({unended}): {seen.counters}")
    if letters != len(seen.letters):
        found.append(f"{len(seen.letters)} dead letters, counted {letters}")
    if len(seen.letters) != seen.letters_counted:
        found.append(f"{len(seen.letters)} dead letters, but {seen.letters_counted} by kind")
    return found


def _misnoted(seen: Look) -> list[str]:
    """The statistics say what the counters say, and everything accepted of a queue and actor is accounted for."""
    noted = sum(seen.noted.values(), Counter[str]())
    for name in [name for name in noted if ":" in name]:
        noted[f"{name.partition(':')[0]}:"] += noted.pop(name)
    counted = {name: n for name, n in seen.counters.items() if ":" not in name and noted[name] != n}
    for kind in ("dead", "discarded"):
        if noted[f"{kind}:"] != noted[kind]:
            found_reasons = f"{noted[kind]} {kind}, but {noted[f'{kind}:']} with a reason"
            counted[found_reasons] = noted[kind]
    found = [f"counted {counted}, but noted {dict(noted)}"] if counted else []
    unended = Counter(record.entry for record in seen.records.values() if record.state in "sr")
    for entry, n in seen.noted.items():
        ended = n["completed"] + n["discarded"] + n["dead"] - n["dlq_left"]
        if n["accepted"] != ended + unended[entry]:
            found.append(f"{unended[entry]} of {entry!r} have not ended, noted {dict(n)}")
    return found
