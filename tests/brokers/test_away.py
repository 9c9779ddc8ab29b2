"""What a push raises while Redis is away: redis-py's class, a text that helps, no password."""

from __future__ import annotations

import pytest
import redis

from relier import rl_actor
from relier.brokers.away import explained
from relier.brokers.redis import RelierRedisBroker
from relier.settings import Settings


def test_a_push_says_where_redis_was_looked_for_and_what_is_known_of_the_task() -> None:
    broker = RelierRedisBroker(settings=Settings(redis_url="redis://:s3cr3t@127.0.0.1:1/0"))
    actor = rl_actor(broker=broker)(lambda: None)
    for push in (actor.push, actor.send, lambda: actor.push_many([actor.message()])):
        with pytest.raises(redis.ConnectionError) as raised:
            push()
        text = str(raised.value)
        assert text.startswith("Relier cannot reach Redis (redis://:***@127.0.0.1:1/0): ")
        assert "Whether a push was accepted is not known" in text
        assert "s3cr3t" not in text
    broker.close()


@pytest.mark.parametrize("kind", [redis.ConnectionError, redis.TimeoutError, redis.AuthenticationError])
def test_its_class_stays(kind: type[redis.RedisError]) -> None:
    assert type(explained(kind("a\nb"), "there")) is kind
    assert "(there): a b. " in str(explained(kind("a\nb"), "there"))
