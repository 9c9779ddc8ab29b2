from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.store.desk import SHARD, Desk
from tests.store.look import inconsistencies, look

WORKERS = ("w1", "w2", "w3", "w4", "w5")


@pytest.fixture
def desk(client: redis.Redis) -> Iterator[Desk]:
    """A store on each kind of server; after the example, everything it keeps must fit together."""
    desk = Desk(client)
    yield desk
    assert not inconsistencies(look(desk.store, [SHARD], WORKERS))
    desk.store.runner.close()
