"""Takes messages out of a Redis broker on request; workers go on beside it, and nothing is moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dramatiq.common import dq_name, xq_name

from relier import failpoints
from relier.store.scripts import script

if TYPE_CHECKING:
    from relier.brokers.generic import Judge

#: Messages of one page: a script searches the queue for so many at once.
PAGE = 100
#: Messages that are judged together, and bytes of them: whoever judges may have to wait for a disk.
PIECE, PIECE_BYTES = 5_000, 64 * 2**20
#: No place in a queue is searched for that is farther from its head: it would block Redis. Ids that stay behind it have
#: no message any more, and are dropped by whoever fetches them.
SEARCHED = 100_000
#: How far (places) a page may have moved since it was read.
MOVED = 10_000


def drain_redis(client: Any, namespace: str, queue: str, judge: Judge) -> int:
    """Remove what `judge` says of what waits in a queue, its delay lane and its dead-letter queue.

    What a worker has fetched stays that worker's. Returns how many messages were removed.
    """
    lanes = (f"{namespace}:{name}" for name in (queue, dq_name(queue)))
    return sum(_drain_list(client, lane, judge) for lane in lanes) + _drain_dead(
        client, f"{namespace}:{xq_name(queue)}", judge
    )


def _drain_list(client: Any, lane: str, judge: Judge) -> int:
    removed, at, end = 0, 0, int(client.llen(lane))
    while at < end:
        ids, bodies = _piece(client, lane, at, end)
        if not ids:
            break
        go = _judged(bodies, judge)
        failpoints.hit("purge-judged")
        for i in range(0, len(ids), PAGE):
            page = [part for k in range(i, min(i + PAGE, len(ids))) for part in (ids[k], "1" if go[k] else "0")]
            far = at + MOVED if at < SEARCHED else 0
            count, began, left = map(int, client.eval(_remove(), 2, lane, f"{lane}.msgs", far, *page))
            removed += count
            # Workers take from the head meanwhile, so places move. What is judged twice is kept twice.
            kept = sum(not gone for gone in go[i : i + PAGE]) if far else len(page) // 2
            at = began + left if began >= 0 else at + kept
        failpoints.hit("purge-removed")
    return removed


def _remove() -> str:
    return script("remove", "relier.brokers").source


def _piece(client: Any, lane: str, at: int, end: int) -> tuple[list[bytes], list[bytes | None]]:
    """Return the next messages of a queue; None for one whose body is gone."""
    ids: list[bytes] = []
    bodies: list[bytes | None] = []
    size = 0
    while len(ids) < PIECE and size < PIECE_BYTES and at + len(ids) < end:
        page = client.lrange(lane, at + len(ids), min(at + len(ids) + PAGE, end) - 1)
        if not page:
            break
        found = client.hmget(f"{lane}.msgs", page)
        ids += page
        bodies += found
        size += sum(len(body) for body in found if body is not None)
    return ids, bodies


def _judged(bodies: Sequence[bytes | None], judge: Judge) -> list[bool]:
    """Return which messages are to go; an id without a body is."""
    verdicts = iter(judge([body for body in bodies if body is not None]))
    return [True if body is None else next(verdicts) for body in bodies]


def _drain_dead(client: Any, lane: str, judge: Judge) -> int:
    """Remove messages from Dramatiq's own dead-letter queue."""
    found = [(redis_id, body) for redis_id, body in client.hscan_iter(f"{lane}.msgs", count=PAGE)]
    removed = 0
    for i in range(0, len(found), PIECE):
        piece = found[i : i + PIECE]
        verdicts = judge([body for _, body in piece])
        gone = [redis_id for (redis_id, _), go in zip(piece, verdicts, strict=True) if go]
        for j in range(0, len(gone), PAGE):
            client.zrem(lane, *gone[j : j + PAGE])
            removed += int(client.hdel(f"{lane}.msgs", *gone[j : j + PAGE]))
    return removed
