"""Each delivery of a message has an id of its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.harness import Harness

QUEUE = "default"


def _fetch(fleet: Harness) -> str:
    _, taken = fleet.broker.exchange(QUEUE, fleet.broker.broker_id, 1, [])
    assert taken is not None
    ((redis_id, _),) = taken
    return str(redis_id)


def _reclaim(fleet: Harness, redis_id: str) -> None:
    fleet.broker.forget(QUEUE, [redis_id])
    assert fleet.broker.reclaim(QUEUE, fleet.broker.broker_id) == 1


def _requeue(fleet: Harness, redis_id: str) -> None:
    fleet.broker.requeue(QUEUE, fleet.broker.broker_id, [redis_id])


def _return(fleet: Harness, redis_id: str) -> None:
    fleet.broker.return_unacked(fleet.broker.broker_id, [QUEUE])
    fleet.broker.renew_broker_id()


@pytest.mark.parametrize("come_back", [_reclaim, _requeue, _return], ids=["reclaimed", "put back", "returned"])
def test_the_holder_of_an_earlier_delivery_cannot_touch_the_next_one(
    fleet: Harness, come_back: Callable[[Harness, str], None]
) -> None:
    fleet.actors.quick.push(1)
    broker = fleet.broker
    old = broker.broker_id
    seen = [_fetch(fleet)]
    for _ in range(3):
        come_back(fleet, seen[-1])
        seen.append(_fetch(fleet))

    *earlier, last = seen
    assert broker.exchange(QUEUE, old, 0, earlier)[0] == [False] * 3
    assert broker.exchange(QUEUE, broker.broker_id, 0, earlier)[0] == [False] * 3
    assert broker.do_qsize(QUEUE) == 1
    assert broker.exchange(QUEUE, broker.broker_id, 0, [last])[0] == [True]
    assert broker.do_qsize(QUEUE) == 0
