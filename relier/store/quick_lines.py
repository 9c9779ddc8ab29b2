"""Quick lines to the servers of a Redis Cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import redis
from redis.exceptions import AskError, MovedError

from relier.store.admissions import Call
from relier.store.quick_line import QuickLine
from relier.store.topology import SlotPool, client_of, slot_of, whole


class QuickLines:
    """A quick line to each server that has a part of what is called; used by one caller at a time.

    Parameters:
      client: of the cluster; see `relier.store.client.connect`.
    """

    def __init__(self, client: Callable[[], redis.Redis]) -> None:
        pool = client().connection_pool
        assert isinstance(pool, SlotPool)
        self._topology = pool.topology
        self._lines: dict[Any, QuickLine] = {}

    def run(self, calls: Sequence[Call], end: float) -> list[Any]:
        """Run scripts, in one round trip for each server; see `QuickLine.run`."""
        slots = [slot_of(keys[0]) for _, keys, _ in calls]
        groups: dict[Any, list[int]] = {}
        for i, slot in enumerate(slots):
            groups.setdefault(self._topology.known_master(slot) or slot, []).append(i)
        replies: list[Any] = [None] * len(calls)
        for place, indexes in groups.items():
            line = self._line(place, slots[indexes[0]])
            for i, reply in zip(indexes, line.run([_whole(calls[i]) for i in indexes], end), strict=True):
                replies[i] = reply
        self._follow(replies)
        return replies

    def _line(self, place: Any, slot: int) -> QuickLine:
        if place not in self._lines:
            self._lines[place] = QuickLine(partial(client_of, self._topology, slot, 1))
        return self._lines[place]

    def _follow(self, replies: Sequence[Any]) -> None:
        """Learn from redirections. What was refused is not sent again: the caller is in a hurry."""
        moves = [reply for reply in replies if isinstance(reply, AskError)]
        for move in moves:
            if isinstance(move, MovedError):
                self._topology.doubt()
        if moves:
            self.close()
            self._lines.clear()
            raise redis.ConnectionError("A part of the store has moved to another server.")

    def close(self) -> None:
        """Close the connections; a later call opens others."""
        for line in self._lines.values():
            line.close()


def _whole(call: Call) -> Call:
    operation, keys, args = call
    return operation, tuple(whole(keys)), args
