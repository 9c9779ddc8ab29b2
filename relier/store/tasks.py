"""The life of tasks: every decision about one is a script of its shard."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relier.errors import RunUnknownError
from relier.store.connection import Argument, ScriptCall, ScriptRunner
from relier.store.keys import Keys, shard_of
from relier.store.scripts import script
from relier.store.verdicts import (
    Burial,
    Claim,
    Due,
    Failure,
    Lot,
    Parking,
    Reconciled,
    Sending,
    Settled,
    Suspicion,
    Verdict,
)
from relier.store.watched import Watched

#: Most ids that one script takes; longer lists are sent in pieces.
BATCH = 100

#: Most bytes of message bodies that one listing of due records returns.
DUE_BYTES = 4 * 2**20

#: How long (s) a mark on a task without a record is kept: longer than its copy may wait in a queue.
MARK_KEPT = 7 * 86_400.0


def _micros(seconds: float) -> int:
    return int(seconds * 1_000_000)


def _flag(value: bool) -> str:
    return "1" if value else "0"


def _protections(sending: Sending) -> str:
    """Tell what a claim needs to know of the task's protections; '' for a task that has none."""
    if sending.key is None and not sending.unsigned:
        return ""
    told: dict[str, Any] = {"key": sending.key.terms()} if sending.key is not None else {}
    return json.dumps({**told, "unsigned": 1} if sending.unsigned else told)


def _decode(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


class Tasks:
    """Task operations of one namespace. Each may be repeated after a lost reply.

    Parameters:
      runner: sends the scripts.
      keys: names the keys.
      retention: seconds for which the id of an ended task is kept when late copies of it may exist.
    """

    def __init__(self, runner: ScriptRunner, keys: Keys, retention: float = 3600.0) -> None:
        self._runner = runner
        self._keys = keys
        self._keep = _micros(retention)
        #: Overrides the server's clock in tests: microseconds since the epoch.
        self.clock: int | None = None
        self.watched = Watched()
        #: How many snapshots this process has begun to take of its runs (R8).
        self.snapshots = 0

    def now(self) -> Argument:
        """Return what scripts take for the time: '' for the server's clock."""
        return "" if self.clock is None else self.clock

    def _call(self, name: str, shard: int, worker: str, *args: Argument) -> ScriptCall:
        return script(name), self._keys.shard(shard, worker), (self.now(), *args)

    def _run(self, name: str, shard: int, worker: str, *args: Argument) -> Any:
        return self._runner.run_shared(*self._call(name, shard, worker, *args))

    # -- a worker's calls ---------------------------------------------------------------------------------------

    def claim(
        self,
        worker: str,
        sending: Sending,
        nonce: bytes,
        seen_fence: int,
        *,
        slot_free: bool,
        settled: Iterable[Settled] = (),
        commit: Commit | None = None,
    ) -> Claim:
        """Ask whether `worker` may run its copy, whose stamp carries `seen_fence` (0: first-hand).

        `commit`: that of the last run, which goes first in the same round trip.
        """
        call = self._call(
            "claim",
            sending.shard,
            worker,
            worker,
            sending.task_id,
            nonce,
            seen_fence,
            _flag(slot_free),
            _flag(sending.follow_up),
            sending.max_resurrections,
            sending.queue,
            sending.actor,
            sending.payload_version,
            sending.body,
            self._keep,
            self.snapshots,
            _protections(sending),
            *self._triples(settled),
        )
        if commit is None:
            reply = self._runner.run_shared(*call)
        else:
            commit.reply, reply = self._runner.run_together(commit.call, call)
        if isinstance(reply, Exception):
            raise reply
        verdict = Verdict(_decode(reply[0]))
        if len(reply) <= 2:
            return Claim(verdict, age=sum(map(int, reply[1:])) / 1e6)
        fence, attempt, crashes, suspect, result, outcome, checkpoint = reply[1:8]
        return Claim(
            verdict, int(fence), int(attempt), int(crashes), bool(suspect), result, _decode(outcome), checkpoint
        )

    def commit(
        self,
        worker: str,
        sending: Sending,
        fence: int,
        *,
        hooks: bool,
        result: bytes = b"",
        protections: str = "",
        settled: Iterable[Settled] = (),
    ) -> bool:
        """Record that the run under `fence` completed its task. False: the run was lost, nothing changed.

        Like `fail`, `discard` and `hand_over` it raises `RunUnknownError` when the store lost the run and cannot take
        it back: the copy is to be given back then, never acknowledged.
        """
        commit = self.prepare_commit(
            worker, sending, fence, hooks=hooks, result=result, protections=protections, settled=settled
        )
        return commit.conclude()

    def prepare_commit(
        self,
        worker: str,
        sending: Sending,
        fence: int,
        *,
        hooks: bool,
        result: bytes = b"",
        protections: str = "",
        settled: Iterable[Settled] = (),
    ) -> Commit:
        """Return a commit to be sent later; see `commit`."""
        args = (sending.task_id, fence, _flag(hooks), result, self._keep, protections, *self._triples(settled))
        return Commit(self, worker, sending, fence, self._call("commit", sending.shard, worker, worker, *args))

    def fail(self, worker: str, sending: Sending, fence: int, failure: Failure) -> str:
        """Record that the run failed; returns retry, dead or refused."""
        args = (
            sending.task_id,
            fence,
            "retry" if failure.retry else "dead",
            _micros(failure.delay),
            _flag(failure.counts),
            _flag(failure.hooks),
            failure.reason,
            failure.fingerprint,
            failure.encoded,
            failure.summary,
        )
        return self._closing("fail", worker, sending, fence, args)

    def discard(
        self, worker: str, sending: Sending, fence: int, reason: str, seen_fence: int = 0, *, remember: float = 0.0
    ) -> bool:
        """End a task on request. False: the run was lost.

        `fence` 0: its copy, whose stamp carries `seen_fence`, was never claimed. `remember`: keep its record for so
        many seconds at least, even when nothing else asks for it.
        """
        keep = max(self._keep, _micros(remember))
        args = (sending.task_id, fence, reason, keep, sending.queue, sending.actor, seen_fence, _flag(remember > 0))
        return self._closing("discard", worker, sending, fence, args) == "discarded"

    def hand_over(self, worker: str, sending: Sending, fence: int, why: str) -> bool:
        """Give a run back at once. Whatever it answers, the run is no longer the caller's."""
        return self._closing("hand_over", worker, sending, fence, (sending.task_id, fence, why)) == "handed-over"

    def _closing(self, name: str, worker: str, sending: Sending, fence: int, args: tuple[Argument, ...]) -> str:
        call = self._call(name, sending.shard, worker, worker, *args)
        return self._closed(call, self._runner.run_shared(*call), worker, sending, fence)

    def _closed(self, call: ScriptCall, reply: Any, worker: str, sending: Sending, fence: int) -> str:
        """Return the verdict that a closing call got; repeats the call when the run has to be restored first."""
        if isinstance(reply, Exception):
            raise reply
        verdict = _decode(reply)
        if verdict == "lost":  # The store rolled back behind this run: restore it, then close it.
            self.adopt(worker, sending, fence)
            verdict = _decode(self._runner.run_shared(*call))
        if verdict in ("lost", "unknown"):
            raise RunUnknownError(f"The store has lost the run of task {sending.task_id}.")
        return verdict

    def adopt(self, worker: str, sending: Sending, fence: int) -> bool:
        """Give a living worker back a run that the store lost."""
        reply = self._run(
            "adopt",
            sending.shard,
            worker,
            worker,
            sending.task_id,
            fence,
            sending.max_resurrections,
            sending.queue,
            sending.actor,
            sending.payload_version,
            self.snapshots,
            sending.body,
            _protections(sending),
        )
        return _decode(reply) == "adopted"

    def settle(self, settled: Iterable[Settled]) -> None:
        """Settle ended tasks, one script a shard, all in one round trip."""
        by_shard: dict[int, list[Settled]] = {}
        for item in settled:
            by_shard.setdefault(item.shard, []).append(item)
        calls = [
            (
                script("settle"),
                self._keys.shard(shard, ""),
                (self.now(), self._keep, *self._triples(items[i : i + BATCH])),
            )
            for shard, items in by_shard.items()
            for i in range(0, len(items), BATCH)
        ]
        if calls:
            self._runner.run_many(calls, unbroken=True)

    def _triples(self, settled: Iterable[Settled]) -> list[Argument]:
        """Flatten settlements. What was confirmed by a server that was lost since may be undone (R5)."""
        now = self._runner.generation
        return [part for s in settled for part in (s.task_id, s.fence, _flag(s.confirmed and s.generation == now))]

    def begin_snapshot(self) -> int:
        """Return the number of a snapshot of this process's runs, which is to be taken after this call (R8).

        What is claimed from now on carries it, and is younger than the snapshot.
        """
        self.snapshots += 1
        return self.snapshots

    def reconcile(self, worker: str, snapshot: int, runs: Mapping[int, Sequence[tuple[str, int]]]) -> Reconciled:
        """Compare the store's view of `worker` with its own, over all given shards.

        `snapshot` is the number that `begin_snapshot` gave before the local view was taken; `runs` maps each shard to
        pairs of task id and fence (0 while the claim is on its way).
        """
        calls = [
            (
                script("reconcile"),
                self._keys.shard(shard, worker),
                (self.now(), worker, snapshot, *(part for run in local for part in run)),
            )
            for shard, local in runs.items()
        ]
        replies = self._runner.run_many(calls) if calls else []
        return Reconciled(*(tuple(_decode(i) for reply in replies for i in reply[part]) for part in range(3)))

    # -- the sweeper's calls ------------------------------------------------------------------------------------

    def bury(self, worker: str, shards: Sequence[int], how: str) -> dict[int, Burial]:
        """Bury a dead worker in the given shards, at most `BATCH` tasks in each."""
        calls = [(script("bury"), self._keys.shard(s, worker), (self.now(), worker, how, BATCH)) for s in shards]
        return dict(zip(shards, (Burial(*map(int, reply)) for reply in self._runner.run_many(calls)), strict=True))

    def due(self, shards: Sequence[int], limit: int) -> tuple[int, list[Due]]:
        """List what is due in the given shards: how many in all, and up to `limit` a shard.

        Where tasks are left that wait for a free idempotency key, one more is counted.
        """
        calls = [
            (
                script("due"),
                self._keys.shard(s, ""),
                (self.now(), min(limit, BATCH), DUE_BYTES, *self.watched.since(s)),
            )
            for s in shards
        ]
        total, records = 0, []
        for shard, (count, flat, age, counted) in zip(shards, self._runner.run_many(calls), strict=True):
            total += count
            self.watched.note(shard, int(age), bool(counted))
            records += [_due(shard, flat[i : i + 10]) for i in range(0, len(flat), 10)]
        return total, records

    def mark_published(self, published: Iterable[Due], grace: float, longest: float) -> None:
        """Note for each record that a copy was published."""
        marks = ((due.shard, (due.task_id, due.fence)) for due in published)
        self._by_shard("mark_published", marks, _micros(grace), _micros(longest))

    def park(self, held: Iterable[tuple[Due, Parking]], longest: float) -> set[str]:
        """Park records that no living worker can run; returns the ids of those that became dead letters instead.

        After `longest` seconds a record is due all the same.
        """
        parked = (
            (due.shard, (due.task_id, due.fence, why.reason, _micros(why.grace) if why.failure else "", why.failure))
            for due, why in held
        )
        replies = self._by_shard("park", parked, _micros(longest))
        return {_decode(task_id) for reply in replies for task_id in reply}

    def lots(self, shards: Sequence[int]) -> list[Lot]:
        """Return the lots in which tasks of these shards are parked."""
        replies = self._runner.commands(("SMEMBERS", self._keys.lots(shard)) for shard in shards)
        return [Lot.of(shard, _decode(lot)) for shard, lots in zip(shards, replies, strict=True) for lot in lots]

    def unpark(self, lot: Lot) -> int:
        """Let at most `BATCH` tasks out of a lot; returns how many are left in it."""
        return int(self._run("unpark", lot.shard, "", lot.name, BATCH))

    def _by_shard(self, name: str, items: Iterable[tuple[int, Sequence[Argument]]], *first: Argument) -> list[Any]:
        """Run one script a shard, all in one round trip."""
        by_shard: dict[int, list[Argument]] = {}
        for shard, args in items:
            by_shard.setdefault(shard, []).extend(args)
        calls = [
            (script(name), self._keys.shard(shard, ""), (self.now(), *first, *args)) for shard, args in by_shard.items()
        ]
        return self._runner.run_many(calls) if calls else []

    # -- custody, marks and a look from outside -----------------------------------------------------------------

    def schedule(self, sending: Sending, delay: float) -> bool:
        """Take custody of a task and publish it after `delay` seconds. False: its id is already known."""
        return self.schedule_many([(sending, delay)])[0]

    def schedule_many(self, sendings: Iterable[tuple[Sending, float]]) -> list[bool]:
        """Take custody of several tasks in one round trip; see `schedule`."""
        calls = [
            (
                script("schedule"),
                self._keys.shard(s.shard, ""),
                (
                    self.now(),
                    s.task_id,
                    _micros(delay),
                    _flag(s.follow_up),
                    s.max_resurrections,
                    s.queue,
                    s.actor,
                    s.payload_version,
                    s.body,
                ),
            )
            for s, delay in sendings
        ]
        return [_decode(reply) == "scheduled" for reply in self._runner.run_many(calls)] if calls else []

    def dead_letter(self, sending: Sending, reason: str, failure: bytes, seen_fence: int = 0) -> bool:
        """Make a dead letter of a copy that cannot be claimed. False: its id is already known."""
        what = (sending.task_id, sending.queue, sending.actor, reason, failure, sending.body)
        reply = self._run("dead_letter", sending.shard, "", *what, seen_fence, sending.payload_version)
        return _decode(reply) == "dead"

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
            sending.max_resurrections,
            sending.queue,
            sending.actor,
            sending.payload_version,
            sending.body,
        )
        return _decode(reply) != "fenced"

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
        args = (task_id, action, _micros(MARK_KEPT), who, unclaimed_before, _flag(dead_letters))
        reply = [_decode(part) for part in self._run("hold", where, "", *args)]
        return (reply[0], reply[1], int(reply[2])) if len(reply) > 1 else (reply[0], "", 0)

    def group_create(self, group_id: str, size: int, ttl_ms: int) -> None:
        """Open a group of `size` members."""
        self._runner.run(script("group_join"), (self._keys.group(group_id),), (self.now(), "", size, ttl_ms))

    def group_join(self, group_id: str, member: str, ttl_ms: int) -> tuple[int, int]:
        """Count a member as done, once; returns members done and the group's size (-1: not known)."""
        reply = self._runner.run(script("group_join"), (self._keys.group(group_id),), (self.now(), member, 0, ttl_ms))
        return int(reply[0]), int(reply[1])


@dataclass(slots=True)
class Commit:
    """A commit that is sent by itself, or by a claim that it rides on. May be sent again."""

    tasks: Tasks
    worker: str
    sending: Sending
    fence: int
    call: ScriptCall
    reply: Any = None  #: what the store replied, an error perhaps

    def conclude(self) -> bool:
        """Send it and return the verdict."""
        self.send()
        return self.verdict()

    def send(self) -> None:
        (self.reply,) = self.tasks._runner.run_together(self.call)

    def verdict(self) -> bool:
        """Whether the commit that was sent last is accepted; see `Tasks.commit`."""
        return self.tasks._closed(self.call, self.reply, self.worker, self.sending, self.fence) == "accepted"


def _due(shard: int, flat: Sequence[Any]) -> Due:
    return Due(
        task_id=_decode(flat[0]),
        shard=shard,
        fence=int(flat[1]),
        state=_decode(flat[2]),
        suspicion=Suspicion(int(flat[3])),
        crashes=int(flat[4]),
        published=int(flat[5]),
        queue=_decode(flat[6]),
        actor=_decode(flat[7]),
        payload_version=int(flat[8]),
        body=flat[9],
    )
