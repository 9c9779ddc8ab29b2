"""What puts a task into the store's custody, marks it from outside, or counts it in a group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from relier.errors import StoreError
from relier.store.calls import Calls, decode, described, flag, micros
from relier.store.connection import Argument, ScriptCall
from relier.store.keys import SHARDS, shard_of
from relier.store.scripts import script
from relier.store.verdicts import Custody, JobTerms, Sending

#: How long (s) a mark on a task without a record is kept: longer than its copy may wait in a queue.
MARK_KEPT = 7 * 86_400.0


class CustodyCalls(Calls):
    """Operations of whoever enqueues, and of people."""

    def schedule(self, sending: Sending, delay: float, *, released: bool = False) -> bool:
        """Take custody of a task and publish it after `delay` seconds. False: its id is already known.

        `released`: a person let it go on, so purges before that do not concern it.
        """
        if released and not sending.job:
            reply = self._run("schedule", sending.shard, "", *_scheduled(sending, delay), flag(released))
            return decode(reply) == "scheduled"
        return self.schedule_many([(sending, delay)])[0]

    def schedule_many(self, sendings: Iterable[tuple[Sending, float]]) -> list[bool]:
        """Take custody of several tasks in one round trip; see `schedule`."""
        calls = [
            self._push(s, JobTerms(delay)) if s.job else self._call("schedule", s.shard, "", *_scheduled(s, delay))
            for s, delay in sendings
        ]
        replies = self._runner.run_many(calls) if calls else []
        return [decode(reply[0] if isinstance(reply, list) else reply) in ("scheduled", "taken") for reply in replies]

    def push_many(self, sendings: Iterable[tuple[Sending, JobTerms]]) -> list[Custody]:
        """Take custody of tasks with job keys, and end those that are older, in one round trip.

        Raises `StoreError` when a newer Relier has a key.
        """
        calls = [self._push(sending, terms) for sending, terms in sendings]
        return [_custody(reply) for reply in self._runner.run_many(calls)] if calls else []

    def _push(self, sending: Sending, terms: JobTerms) -> ScriptCall:
        return self._call(
            "push",
            sending.shard,
            "",
            sending.task_id,
            sending.job,
            micros(terms.delay),
            flag(terms.published),
            flag(sending.follow_up),
            *described(sending),
            sending.on_dead,
            self._keep,
            flag(terms.refuses),
            flag(terms.cancels),
        )

    def dead_letter(self, sending: Sending, reason: str, failure: bytes, seen_fence: int = 0) -> bool:
        """Make a dead letter of a copy that cannot be claimed. False: its id is already known."""
        what = (sending.task_id, sending.queue, sending.actor, reason, failure, sending.body)
        reply = self._run("dead_letter", sending.shard, "", *what, seen_fence, sending.payload_version, sending.on_dead)
        return decode(reply) == "dead"

    def decline(self, worker: str, sending: Sending, seen_fence: int) -> bool:
        """Let the store have a copy that `worker` cannot run; its stamp carries `seen_fence`.

        False: the worker was declared dead, and nothing was changed.
        """
        reply = self._run(
            "decline",
            sending.shard,
            worker,
            worker,
            sending.task_id,
            seen_fence,
            *described(sending),
            sending.on_dead,
        )
        return decode(reply) != "fenced"

    def hold(
        self,
        task_id: str,
        action: str,
        who: str,
        shard: int | None = None,
        unclaimed_before: int = 0,
        *,
        dead_letters: bool = True,
    ) -> tuple[str, str, int]:
        """Hold, cancel or release a task; returns what happened, and owner and fence of a running one.

        `unclaimed_before`: the time (µs since the epoch) before which the task was surely not claimed; by it the
        cancelling of a task without record is known to have come in time. `dead_letters`: cancel one of those too.
        """
        where = shard_of(task_id) if shard is None else shard
        args = (task_id, action, micros(MARK_KEPT), who, unclaimed_before, flag(dead_letters))
        reply = [decode(part) for part in self._run("hold", where, "", *args)]
        return (reply[0], reply[1], int(reply[2])) if len(reply) > 1 else (reply[0], "", 0)

    def retry(self, task_id: str, who: str, shard: int) -> str:
        """Let a task that waits in the store be published at once.

        Returns `due`, or why not: queued, waits for its key, running, dead, ended, unknown, newer.
        """
        return decode(self._runner.run_shared(*self._by_hand("retry", shard, task_id, who)))

    def mark_elsewhere(self, task_id: str) -> int | None:
        """Mark a task of which nothing is known as cancelled in every shard that its id does not name.

        Returns a shard that does know it, else None. May be repeated. A shard keeps the newest 1,000 marks.
        """
        shards = [shard for shard in range(SHARDS) if shard != shard_of(task_id)]
        args = (self.now(), task_id, micros(MARK_KEPT))
        replies = self._runner.run_many([(script("mark"), self._keys.shard(shard, ""), args) for shard in shards])
        found = (shard for shard, reply in zip(shards, replies, strict=True) if decode(reply) == "known")
        return next(found, None)

    def group_create(self, group_id: str, size: int, ttl_ms: int) -> None:
        """Open a group of `size` members."""
        self._runner.run(script("group_join"), (self._keys.group(group_id),), (self.now(), "", size, ttl_ms))

    def group_join(self, group_id: str, member: str, ttl_ms: int) -> tuple[int, int]:
        """Count a member as done, once; returns members done and the group's size (-1: not known)."""
        reply = self._runner.run(script("group_join"), (self._keys.group(group_id),), (self.now(), member, 0, ttl_ms))
        return int(reply[0]), int(reply[1])


def _scheduled(sending: Sending, delay: float) -> tuple[Argument, ...]:
    return (sending.task_id, micros(delay), flag(sending.follow_up), *described(sending), sending.on_dead)


def _custody(reply: Any) -> Custody:
    verdict, *rest = map(decode, reply)
    if verdict == "newer":
        raise StoreError("A newer version of Relier has this job key; let that version push.")
    if verdict == "refused":
        return Custody(0, refused_by=rest[0], reason=rest[1])
    return Custody(int(rest[0]), *rest[1:])
