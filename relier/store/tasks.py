"""The life of tasks: every decision about one is a script of its shard."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from relier.errors import RunUnknownError
from relier.store.calls import BATCH, decode, described, flag, micros
from relier.store.connection import Argument, ScriptCall
from relier.store.custody_calls import CustodyCalls
from relier.store.scripts import script
from relier.store.sweeping import SweeperCalls
from relier.store.verdicts import Claim, Failure, Reconciled, Sending, Settled, Verdict


def _protections(sending: Sending) -> str:
    """Tell what a claim needs to know of the task's protections; '' for a task that has none."""
    if not (sending.key or sending.unsigned or sending.job or sending.on_dead or sending.span):
        return ""
    told: dict[str, Any] = {"key": sending.key.terms()} if sending.key is not None else {}
    if sending.job:
        told["job"] = {"k": sending.job, "n": sending.rank}
    if sending.on_dead:
        told["dead"] = sending.on_dead
    if sending.span:
        told["span"] = sending.span
    return json.dumps({**told, "unsigned": 1} if sending.unsigned else told)


class Tasks(SweeperCalls, CustodyCalls):
    """All operations on the tasks of one namespace; here those of a worker. Each may be repeated after a lost reply."""

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
            flag(slot_free),
            flag(sending.follow_up),
            *described(sending),
            self._keep,
            self.snapshots,
            _protections(sending),
            micros(sending.created),
            *self._triples(settled),
        )
        if commit is None:
            reply = self._runner.run_shared(*call)
        else:
            commit.reply, reply = self._runner.run_together(commit.call, call)
        if isinstance(reply, Exception):
            raise reply
        verdict = Verdict(decode(reply[0]))
        if len(reply) <= 3:
            age, crashes = [*map(int, reply[1:]), 0, 0][:2]
            return Claim(verdict, crashes=crashes, age=age / 1e6)
        fence, attempt, crashes, suspect, result, outcome, checkpoint, span = reply[1:9]
        return Claim(
            verdict,
            int(fence),
            int(attempt),
            int(crashes),
            bool(suspect),
            result,
            decode(outcome),
            checkpoint,
            span=decode(span),
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
        args = (sending.task_id, fence, flag(hooks), result, self._keep, protections, *self._triples(settled))
        return Commit(self, worker, sending, fence, self._call("commit", sending.shard, worker, worker, *args))

    def fail(self, worker: str, sending: Sending, fence: int, failure: Failure) -> str:
        """Record that the run failed; returns retry, dead, discarded or refused.

        Asked for a retry it may answer dead.
        """
        args = (
            sending.task_id,
            fence,
            "retry" if failure.retry else "dead",
            micros(failure.delay),
            flag(failure.counts),
            flag(failure.hooks),
            failure.reason,
            failure.fingerprint,
            failure.encoded,
            failure.summary,
            failure.identical_limit,
        )
        return self._closing("fail", worker, sending, fence, args)

    def discard(
        self, worker: str, sending: Sending, fence: int, reason: str, seen_fence: int = 0, *, remember: float = 0.0
    ) -> bool:
        """End a task on request. False: the run was lost.

        `fence` 0: its copy, whose stamp carries `seen_fence`, was never claimed. `remember`: keep its record for so
        many seconds at least, even when nothing else asks for it.
        """
        keep = max(self._keep, micros(remember))
        args = (sending.task_id, fence, reason, keep, sending.queue, sending.actor, seen_fence, flag(remember > 0))
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
        verdict = decode(reply)
        if verdict == "lost":  # The store rolled back behind this run: restore it, then close it.
            self.adopt(worker, sending, fence)
            verdict = decode(self._runner.run_shared(*call))
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
        return decode(reply) == "adopted"

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
        return [part for s in settled for part in (s.task_id, s.fence, flag(s.confirmed and s.generation == now))]

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
        return Reconciled(*(tuple(decode(i) for reply in replies for i in reply[part]) for part in range(4)))


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
