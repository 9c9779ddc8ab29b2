"""A look at queues from outside: whatever lies in them, it tells what it can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import redis
from dramatiq import Message

from relier.brokers.peek import Head, redis_heads, redis_oldest

GOOD = Message("q", "act", (), {}, {}, message_id="good", message_timestamp=2_000).encode()
MADE_AT = [b'"soon"', b"null", b"[1]", b"1" + b"0" * 400]


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", b"[]", b"{}", *(GOOD.replace(b"2000", made) for made in MADE_AT)], ids=range(8)
)
def test_a_message_that_nobody_can_read_hides_no_queue(client: redis.Redis, raw: bytes) -> None:
    for queue, message in (("bad", raw), ("good", GOOD)):
        client.rpush(f"ns:{queue}", "m")
        client.hset(f"ns:{queue}.msgs", "m", message)

    def run(commands: Sequence[Sequence[str | bytes | int | float]]) -> list[Any]:
        return [client.execute_command(*command) for command in commands]

    assert redis_heads(run, "ns", ["bad", "good"]) == {"bad": Head(1, None), "good": Head(1, 2.0)}
    assert redis_oldest(client, "ns", ["bad", "good"]) == 2.0
