"""A result is kept in the step that completes its task, once, for its time; duplicates refer to it."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from typing import Any

import redis

from relier.store.scripts import Script
from tests.store.desk import SHARD, Desk

KEEP = json.dumps({"res": 60_000})


def _commit(desk: Desk, fence: int, result: bytes = b"42", protections: str = KEEP, **more: Any) -> bool:
    return desk.tasks.commit(
        "w1", desk.sending(), fence, hooks=more.get("hooks", False), result=result, protections=protections
    )


def _key(task: str) -> str:
    return f"rl:relier:{{{SHARD:02d}}}:res:{task}"


def _kept(desk: Desk, task: str = "t") -> Any:
    return desk.client.get(_key(task))


def test_the_commit_keeps_the_result_for_its_time(desk: Desk) -> None:
    fence = desk.run()
    assert _kept(desk) is None

    assert _commit(desk, fence)

    assert _kept(desk) == b"v42"
    assert 0 < desk.client.pttl(_key("t")) <= 60_000
    desk.settle(fence, confirmed=True)
    assert (desk.find(), _kept(desk)) == (None, b"v42")


def test_a_marker_is_kept_in_place_of_a_result_that_is_not(desk: Desk) -> None:
    _commit(desk, desk.run(), b"", json.dumps({"res": 60_000, "marker": "l123"}))
    assert _kept(desk) == b"l123"


def test_a_commit_that_is_refused_keeps_nothing(desk: Desk) -> None:
    fence = desk.run()
    desk.bury("w1")
    assert not _commit(desk, fence)
    assert _kept(desk) is None


def test_a_repeated_commit_leaves_the_result_alone(desk: Desk) -> None:
    fence = desk.run()
    _commit(desk, fence, hooks=True)
    desk.client.delete(_key("t"))
    assert _commit(desk, fence, hooks=True)
    assert _kept(desk) is None


def _script(body: str) -> Script:
    includes = files("relier.store") / "lua" / "include"
    source = "".join((includes / f"{name}.lua").read_text("utf-8") for name in ("clock", "record", "result")) + body
    return Script("test", source, hashlib.sha1(source.encode()).hexdigest())


def test_duplicates_refer_to_one_result(desk: Desk) -> None:
    _commit(desk, desk.run(), b"x" * 1000)
    keys, refer = desk.store.keys.shard(SHARD, ""), _script("refer_result(ARGV[2], 't', tonumber(ARGV[3]))")
    for number in range(100):
        desk.store.runner.run(refer, keys, ("", f"d{number}", 90_000))

    read = _script("return { read_result(ARGV[2]), has_result(ARGV[2]) and 1 or 0 }")
    assert desk.store.runner.run(read, keys, ("", "d7")) == [b"v" + b"x" * 1000, 1]
    assert desk.client.strlen(_key("d7")) == len("@t")
    assert 60_000 < desk.client.pttl(_key("t")) <= 90_000  # as long as the last of them

    desk.client.delete(_key("t"))
    assert desk.store.runner.run(read, keys, ("", "d7")) == [b"", 1]
    assert desk.store.runner.run(read, keys, ("", "nobody")) == [b"", 0]


def test_a_completion_without_a_value_is_told_from_no_result(desk: Desk) -> None:
    kind = _script("local kept = kept_result(ARGV[2]); return kept or kept == nil and 'nothing' or 'no value'")
    keys = desk.store.keys.shard(SHARD, "")
    assert desk.store.runner.run(kind, keys, ("", "t")) == b"nothing"
    _commit(desk, desk.run())
    assert desk.store.runner.run(kind, keys, ("", "t")) == b"42"
    desk.client.set(_key("t"), "l123")
    assert desk.store.runner.run(kind, keys, ("", "t")) == b"no value"


def test_a_reference_shortens_nothing(desk: Desk, client: redis.Redis) -> None:
    _commit(desk, desk.run())
    refer = _script("refer_result('d', 't', 10)")
    desk.store.runner.run(refer, desk.store.keys.shard(SHARD, ""), ("",))
    assert client.pttl(_key("t")) > 10_000
