"""Purging: clears queues or actors for good, wherever copies of their tasks are.

First a mark: from then on no claim grants what is older. Then what can be found is ended at once: copies that wait in
the broker, and tasks that wait in the store. What nobody can reach (fetched by a stopped worker, in a broker that
cannot be drained) meets the mark when it comes. Killed at any point, it has lost nothing; repeated, it goes on.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from dramatiq import Broker, Message
from dramatiq.common import q_name
from dramatiq.errors import BrokerConnectionError

from relier import failpoints
from relier.brokers.adapters import adapter_of
from relier.envelope import HIGHEST_FENCE, stamp_of
from relier.integrity import Integrity
from relier.settings import Settings
from relier.store import Store
from relier.store.connection import UNAVAILABLE
from relier.store.purging import Copy, Judgement, Purge, concerning
from relier.store.survey import Survey

#: How far (s) a mark is ahead of the beginning of its purge, at least, and how long the purge goes on after its time:
#: a stamp may be off by as much. See `relier/server_clock.py`.
MARGIN = 0.5
#: Longest wait (s) for the time of the mark, should the server's clock be set back meanwhile.
LONGEST_WAIT = 3.0

#: What a broker raises that is away. If it is the store, that raises again when it is needed next.
_AWAY: tuple[type[Exception], ...] = (*UNAVAILABLE, BrokerConnectionError)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be purged; all tasks when nothing is said.

    Parameters:
      queues: tasks of these queues.
      actor: tasks of this actor.
      older_than: seconds; what was enqueued later stays.
    """

    queues: tuple[str, ...] = ()
    actor: str = ""
    older_than: float = 0.0

    def concerns(self) -> tuple[str, ...]:
        return tuple(concerning(queue, self.actor) for queue in self.queues or ("",))


@dataclass(slots=True)
class Purged:
    """What a purge did, or would do."""

    #: Tasks that ended because their copies waited in the broker, by queue; None: it cannot be drained, or read.
    drained: dict[str, int] | None = field(default_factory=dict)
    #: Messages in the broker of which a preview cannot tell which are concerned; None: not even how many there are.
    unread: int | None = 0
    #: Copies of tasks that had ended before; removed as well.
    late_copies: int = 0
    #: Tasks that ended in the store: delayed, retrying, put back, held, parked.
    in_store: int = 0
    #: What was enqueued before this time (seconds since the epoch, on the server's clock) never runs any more.
    before: int = 0
    #: What the broker said when it did not answer; '' when it did.
    trouble: str = ""

    @property
    def tasks(self) -> int:
        return self.in_store + sum((self.drained or {}).values())


class Purging:
    """One purge of a store and a broker.

    Parameters:
      store, broker: where tasks and messages are.
      settings: with the keys by which messages are examined.
      selection: what is to be purged.
      who: asks for it.
    """

    def __init__(self, store: Store, broker: Broker, settings: Settings, selection: Selection, who: str) -> None:
        self.store = store
        self.adapter = adapter_of(broker)
        self.done = Purged()
        self._integrity = Integrity.of(settings)
        now = Survey(store).now()
        self._waits = not selection.older_than
        at = math.ceil(now + MARGIN) if self._waits else int(now - selection.older_than)
        self.purge = Purge(selection.concerns(), at, now, who)
        self.done.before = at

    def run(self, queues: Iterable[str]) -> Purged:
        """Purge; `queues` are those to be drained. Raises `TooManyMarksError`.

        A broker that is away does not hinder it. It takes a second or two: what is enqueued after it has returned is
        not concerned.
        """
        failpoints.hit("before-mark")
        self.store.purges.mark(self.purge)
        failpoints.hit("purge-marked")
        self._drain(queues)
        for ended in self.store.purges.waiting(self.purge):
            self.done.in_store += len(ended)
            failpoints.hit("purge-swept")
        self._wait()
        return self.done

    def preview(self, queues: Iterable[str]) -> Purged:
        """Tell what `run` would do; changes nothing. Where a broker cannot be read, its messages are not counted."""
        wanted = set(queues)
        copies = self._readable(wanted)
        found = {copy.task_id for copy in copies}  # Of some the store has a record as well.
        for i in range(0, len(copies), 1000):
            self._note(copies[i : i + 1000], only_tell=True)
        for page in self.store.purges.waiting(self.purge, only_tell=True):
            self.done.in_store += len(set(page) - found)
        return self.done

    # -- the broker -------------------------------------------------------------------------------------------------

    def _drain(self, queues: Iterable[str]) -> None:
        try:
            for queue in queues:
                if self.adapter.drain(queue, self._judge) is None:
                    self.done.drained = None
                    return
        except _AWAY as error:
            self._is_away(error)

    def _readable(self, queues: set[str]) -> list[Copy]:
        """Return the copies that wait in the broker and may be concerned; none where it cannot be read."""
        try:
            bodies = self.adapter.waiting()
            if bodies is None:
                self.done.drained, self.done.unread = None, self._depth(queues)
            return [copy for copy in map(self._copy, bodies or ()) if copy and copy.queue in queues]
        except _AWAY as error:
            self.done.drained = self.done.unread = None
            self._is_away(error)
            return []

    def _is_away(self, error: Exception) -> None:
        self.done.trouble = " ".join(str(error).split()) or type(error).__name__

    def _depth(self, queues: set[str]) -> int | None:
        try:
            depths = [self.adapter.depth(queue) for queue in sorted(queues)]
        except _AWAY as error:
            self._is_away(error)
            return None
        return None if None in depths else sum(depth or 0 for depth in depths)

    def _judge(self, bodies: Sequence[bytes]) -> list[bool]:
        """End the tasks of messages; returns which messages may be removed, once that is durable (R4)."""
        generation = self.store.runner.generation
        copies = [self._copy(body) for body in bodies]
        known = [copy for copy in copies if copy is not None]
        found = dict(zip(known, self._note(known), strict=True))
        gone = [copy is not None and found[copy] is not Judgement.KEPT for copy in copies]
        if any(gone) and not self.adapter.shares_redis(self.store.client):
            self.store.durability.wait()
            self.store.runner.probe()
            if self.store.runner.generation != generation:  # The server behind the new connection may not have it.
                return [False] * len(bodies)
        return gone

    def _note(self, copies: Sequence[Copy], *, only_tell: bool = False) -> list[Judgement]:
        found = self.store.purges.copies(self.purge, copies, only_tell=only_tell)
        ended = Counter(copy.queue for copy, each in zip(copies, found, strict=True) if each is Judgement.PURGED)
        for queue, count in ended.items():
            if self.done.drained is not None:
                self.done.drained[queue] = self.done.drained.get(queue, 0) + count
        self.done.late_copies += sum(each is Judgement.ENDED for each in found)
        return found

    def _copy(self, body: bytes) -> Copy | None:
        """Read a message that the purge may concern; None for others, and for what is not what a producer sent."""
        try:
            message: Message[object] = Message.decode(body)
            self._integrity.examine(message)
            stamp = stamp_of(message)
        except Exception:  # An encoder of the application's may raise anything. A worker makes a dead letter of it.
            return None
        queue = stamp.queue or q_name(message.queue_name)
        if not self.purge.covers(queue, message.actor_name):
            return None
        created = max(0, min(stamp.created_ms, HIGHEST_FENCE // 1000)) / 1000
        return Copy(stamp.task_id, stamp.shard, stamp.fence, queue, message.actor_name, created)

    # -- the mark's time --------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Return when whatever is enqueued from now on is stamped with a later time than the mark's."""
        end = time.monotonic() + LONGEST_WAIT
        while self._waits and time.monotonic() < end:
            left = self.purge.at + MARGIN - Survey(self.store).now()
            if left <= 0:
                return
            time.sleep(min(left, 0.2))
