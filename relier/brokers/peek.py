"""Reads what a Redis broker has, without taking anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from dramatiq import Message
from dramatiq.common import dq_name, q_name
from dramatiq.errors import DecodeError

#: Sends plain commands in one round trip.
Commands = Callable[[Sequence[Sequence[str | bytes | int | float]]], list[Any]]

#: About how many keys or messages one call looks at.
PAGE = 500


class Head(NamedTuple):
    """What is known of a queue from outside."""

    depth: int | None  #: messages that wait in it and its delay lane; None when the broker cannot tell
    #: When the oldest of them was made (s since the epoch, its producer's clock); None for none, or not known.
    oldest: float | None


class Measurable(Protocol):
    """What tells of one queue at a time."""

    def depth(self, queue: str) -> int | None: ...

    def oldest(self, queue: str) -> float | None: ...


def heads_of(broker: Measurable, queues: Iterable[str]) -> dict[str, Head]:
    """Ask for one queue after the other; what is empty has no oldest message."""
    found = {}
    for queue in queues:
        depth = broker.depth(queue)
        found[queue] = Head(depth, broker.oldest(queue) if depth else None)
    return found


def redis_messages(client: Any, namespace: str) -> Iterator[bytes]:
    """Yield every message of every queue, waiting or unacknowledged; dead-letter queues are left out.

    Queues are found by their keys: nobody may know a queue any more whose actors are gone.
    """
    for key, _ in _lanes(client, namespace):
        for _, message in client.hscan_iter(key, count=PAGE):
            yield message


def redis_queues(client: Any, namespace: str) -> set[str]:
    """Return the queues that have messages, waiting or unacknowledged."""
    return {q_name(lane) for _, lane in _lanes(client, namespace)}


def redis_heads(run: Commands, namespace: str, queues: Sequence[str]) -> dict[str, Head]:
    """Return what is known of several queues, in two round trips. `run`: sends commands together."""
    lanes = [f"{namespace}:{lane}" for queue in queues for lane in (queue, dq_name(queue))]
    replies = run([command for lane in lanes for command in (("LLEN", lane), ("LINDEX", lane, 0))]) if lanes else []
    depths = dict(zip(lanes, map(int, replies[::2]), strict=True))
    firsts = {lane: message_id for lane, message_id in zip(lanes, replies[1::2], strict=True) if message_id}
    messages = run([("HGET", f"{lane}.msgs", message_id) for lane, message_id in firsts.items()]) if firsts else []
    made = {lane: _made_at(data) for lane, data in zip(firsts, messages, strict=True)}
    found = {}
    for i, queue in enumerate(queues):
        own = lanes[2 * i : 2 * i + 2]
        times = [time for time in map(made.get, own) if time is not None]
        found[queue] = Head(sum(depths[lane] for lane in own), min(times, default=None))
    return found


def _made_at(data: bytes | None) -> float | None:
    try:
        return float(Message.decode(data).message_timestamp) / 1000 if data else None
    except (DecodeError, TypeError, ValueError, OverflowError):
        return None  # A worker will find out.


def redis_oldest(client: Any, namespace: str, lanes: Iterable[str]) -> float | None:
    """Return when the message at the head of these queues was made, in seconds since the epoch; None without any."""
    found = []
    for lane in lanes:
        message_id = client.lindex(f"{namespace}:{lane}", 0)
        data = message_id and client.hget(f"{namespace}:{lane}.msgs", message_id)
        found.append(_made_at(data))
    return min((time for time in found if time is not None), default=None)


def _lanes(client: Any, namespace: str) -> Iterator[tuple[bytes, str]]:
    """Yield each queue and delay lane that has messages: the key of these, and its name."""
    prefix, suffix = f"{namespace}:", ".msgs"
    for key in client.scan_iter(match=f"{prefix}*{suffix}", count=PAGE):
        lane = key.decode("utf-8", "replace")[len(prefix) : -len(suffix)]
        if ":" not in lane and not lane.endswith(".XQ"):  # another namespace's, or Dramatiq's own dead letters
            yield key, lane
