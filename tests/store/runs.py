"""Runs: a copy of a task in a worker, from its delivery to its settlement, and the claims and closings on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from relier.errors import RunUnknownError
from relier.store import Claim, Failure, Sending, Settled, Verdict
from relier.store.letter_entries import arguments_of, read_entries
from relier.store.letters import Place
from relier.store.verdicts import RUNS
from tests.store.judge import Judge
from tests.store.look import Seen
from tests.store.world import SHARDS, Copy, Ledger, Process, Run

T = TypeVar("T")

ENDINGS = (
    *("commit", "commit", "commit+hooks", "commit+hooks", "discard", "hand over"),
    *("retry", "retry", "retry+hooks", "retry, otherwise", "retry, uncounted", "dead", "dead+hooks"),
)
#: So many identical failures in a row make a dead letter.
LIMIT = 3


def pick_from(choices: Sequence[T], pick: int) -> T:
    return choices[pick % len(choices)]


def fingerprint_of(ending: str) -> str:
    return "other" if ending == "retry, otherwise" else "same"


class Runs(Judge):
    """Steps of runs. Workers behave here as the design asks of them."""

    def new_task(self, limit: int, follow_up: bool) -> str:
        number = len(self.world.tasks)
        sending = Sending(
            f"t{number}",
            SHARDS[number % 3 == 2],
            "default",
            "act",
            b"body",
            max_resurrections=limit,
            follow_up=follow_up,
        )
        self.world.tasks[sending.task_id] = Ledger(sending)
        return sending.task_id

    def enqueue(self, copy: Copy) -> None:
        """Enqueue a first-hand copy; what `push` promised survives."""
        self.world.broker.enqueue(copy)
        if self.saved:
            self.saved.broker.enqueue(copy)

    def mark(self, task_id: str, action: str) -> None:
        before, shard = self.seen.records.get(task_id), self.world.tasks[task_id].sending.shard
        happened, owner, fence = self.tasks.hold(task_id, action, "somebody", shard)
        if before and before.state == "r":
            self.check((happened, owner, fence) == ("running", before.owner, before.fence), f"marked a run: {happened}")
        self.judge(action, {task_id})

    def let_out(self, task_id: str, action: str) -> None:
        """Release or purge a dead letter, or take one in that was exported.

        Somebody means the letter that was there at the last look; there is one after each step.
        """
        ledger, letters = self.world.tasks[task_id], self.store.letters
        letters.clock, shard = self.tasks.clock, ledger.sending.shard
        before, died = self.seen.records.get(task_id), self._died(task_id, shard)
        if action == "take in":
            self._take_in(task_id, ledger, before is not None or task_id in self.seen.remembered)
        else:
            place = Place(ledger.looked or died or 1, shard, task_id)
            (happened,) = (letters.release if action == "let go" else letters.purge)([place], "somebody").values()
            expected = {"let go": "released"}.get(action, "purged") if before and before.state == "d" else "pending"
            expected = expected if died and place.died == died else "gone"
            self.check(happened == (expected if before else "unknown"), f"{action}: {happened}, it was {before}")
        self.judge("release" if action == "let go" else action, {task_id})
        died = self._died(task_id, shard)
        if died:
            ledger.exported = next(read_entries(letters, [Place(died, shard, task_id)]), None)
        ledger.looked = died

    def _died(self, task_id: str, shard: int) -> int:
        return int(self.client.zscore(self.store.keys.shard(shard, "")[5], task_id) or 0)

    def _take_in(self, task_id: str, ledger: Ledger, is_known: bool) -> None:
        if ledger.exported is None:
            return
        was = self.store.records([task_id], ledger.sending.shard).get(task_id)
        purged = was is not None and (was.state, was.reason) == ("e", "purged")
        entry = (ledger.sending.shard, arguments_of(ledger.exported))
        (happened,) = self.store.letters.take_in("somebody", [entry])
        there = "exists" if was is not None and was.outcome == "dead" else "known"
        expected = "imported" if purged or not is_known else there
        self.check(happened == expected, f"taken in: {happened}, it was {was}")

    def schedule(self, task_id: str) -> None:
        sending = self.world.tasks[task_id].sending
        self.check(self.tasks.schedule(sending, 5.0), "a new task was refused")
        self.judge("schedule", {task_id})
        self.check(not self.tasks.schedule(sending, 5.0), "a known task was scheduled again")
        self.durable()

    def deliver(self, copy: Copy, process: Process) -> Run | None:
        if process.identity in self.world.broker.barred:
            return None
        self.world.broker.holders[copy.number] = process.identity
        process.runs.append(Run(process.identity, copy, self.new_nonce()))
        return process.runs[-1]

    def new_nonce(self) -> bytes:
        return b"n%d" % next(self.world.numbers)

    def steps(self, process: Process, run: Run, steps: int, ending: str, reply: str, sure: bool) -> None:
        """Make some steps of a run; `reply` is the fate of the last one's call."""
        for step in range(steps):
            if run in process.runs:
                self.advance(process, run, ending, reply if step == steps - 1 else "heard", sure)

    def advance(self, process: Process, run: Run, ending: str, reply: str, sure: bool) -> None:
        """Make the next step of a run. `reply`: heard, lost, or late (the call is still on its way)."""
        if run.phase in ("fetched", "claim?"):
            self.claim(process, run, reply, ride=sure)
        elif run.phase in ("running", "close?"):
            self.close(process, run, run.closing or ending, reply)
        elif run.phase == "hooks":
            self.world.tasks[run.task].hooks_ran = True
            run.phase = "ack"
        elif run.phase == "ack":
            removed = self.world.broker.ack(run.copy.number, run.caller)
            confirmed = removed and sure and not run.doubtful and not self.world.amqp
            shard = self.world.tasks[run.task].sending.shard
            process.unsettled.append(Settled(run.task, shard, run.fence, confirmed))
            process.drop(run)
        elif run.phase == "skip":
            if not self.world.same_server:
                self.durable()
            self.world.broker.ack(run.copy.number, run.caller)
            process.drop(run)
            self.judge("skip")

    def claim(self, process: Process, run: Run, reply: str, ride: bool) -> None:
        if not run.connected:  # Its server was replaced: the copy is void (R5).
            return process.drop(run)
        sending = self.world.tasks[run.task].sending
        if run.copy.suspect and process.suspect_slot is None:
            process.suspect_slot = run
        slot = process.suspect_slot is run
        settled = [item for item in process.unsettled if ride and item.shard == sending.shard]

        snapshots = self.tasks.snapshots

        def call() -> Claim:
            return self.judged_claim(run, sending, slot, settled, snapshots)

        repeated, run.phase = run.phase == "claim?", "claim?"
        run.doubtful = run.doubtful or repeated or reply != "heard"
        if reply == "late":
            self.late.append(call)
            return None
        claim = call()
        if reply == "lost":
            return None
        process.unsettled = [item for item in process.unsettled if item not in settled]
        return self.heard(process, run, claim)

    def judged_claim(self, run: Run, sending: Sending, slot: bool, settled: list[Settled], snapshots: int) -> Claim:
        """Claim, and check the verdict; a delayed request carries the `snapshots` of the time when it was sent."""
        touched = {run.task, *(item.task_id for item in settled)}
        was, dead = self.seen.records.get(run.task), self.seen.dead[sending.shard]
        self.tasks.snapshots, now = snapshots, self.tasks.snapshots
        claim = self.tasks.claim(run.caller, sending, run.nonce, run.copy.stamp, slot_free=slot, settled=settled)
        self.tasks.snapshots = now
        if run.task not in {item.task_id for item in settled}:
            self.check(self._right(run, was, dead, claim, slot), f"{run} was told {claim}, the record was {was}")
        if claim.verdict in RUNS and claim.fence != run.granted():
            floor = self.seen.floors.get(sending.shard, 0)
            self.check(claim.fence > floor, f"fence {claim.fence} is not above the floor {floor}")
            self.world.tasks[run.task].hooks_ran = self.world.tasks[run.task].hooks_owed = False
        if claim.fence:
            run.unheard = claim.fence
        self.judge("claim", touched, run)
        return claim

    def _right(self, run: Run, was: Seen | None, dead: set[str], claim: Claim, slot: bool) -> bool:
        """Whether a claim got the verdict that the record before it asks for."""
        stamp, verdict, runs = run.copy.stamp, claim.verdict, claim.verdict in RUNS
        may_run = verdict is Verdict.SETTLED if was and was.is_cancelled else runs
        if run.caller in dead:
            return verdict is Verdict.FENCED
        if was is None and run.task in self.seen.remembered:
            return verdict is Verdict.SETTLED
        if was is None:
            floor = self.seen.floors.get(self.world.tasks[run.task].sending.shard, 0)
            return verdict is Verdict.SETTLED if 0 < stamp <= floor else runs
        if was.state in "rh" and was.owner == run.caller and was.fence == run.unheard:
            return claim.fence == was.fence and (runs if was.state == "r" else verdict is Verdict.REPLAY)
        if stamp > was.fence and was.state in "rsd":
            return may_run and self.earliest > 0
        if was.state == "r" and was.owner in dead:
            return runs or verdict in (Verdict.SETTLED, Verdict.HELD)
        if was.state == "h":
            return verdict is (Verdict.REPLAY if was.owner == "" or was.owner in dead else Verdict.BUSY)
        if was.state == "s" and stamp == was.fence:
            return verdict is Verdict.HELD if was.suspect and not slot else may_run
        return verdict is {"r": Verdict.BUSY, "s": Verdict.STALE}.get(was.state, Verdict.SETTLED)

    def heard(self, process: Process, run: Run, claim: Claim) -> None:
        if claim.verdict in RUNS:
            run.phase, run.fence = "running", claim.fence
        elif claim.verdict is Verdict.REPLAY:
            run.phase, run.fence = "hooks", claim.fence
        elif claim.verdict is Verdict.FENCED:
            self.refence(process)
        else:
            run.phase = "skip"
        if not (claim.suspect and claim.verdict in RUNS):
            process.free_slot(run)

    def close(self, process: Process, run: Run, ending: str, reply: str) -> None:
        def call() -> str:
            return self.judged_close(run, ending)

        repeated, run.phase, run.closing = run.phase == "close?", "close?", ending
        run.doubtful = run.doubtful or repeated or reply != "heard"
        if reply == "late":
            self.late.append(call)
            return
        accepted = call()
        if reply == "lost":
            return
        process.free_slot(run)
        if not accepted and run.task not in {*self.seen.records, *self.seen.remembered}:
            process.drop(run)  # The store knows nothing of the task: the broker shall keep the copy (R4).
        elif not accepted or accepted in ("retry", "hand over"):
            run.phase = "skip"
        else:
            run.phase = "hooks" if accepted.endswith("hooks") else "ack"

    def judged_close(self, run: Run, ending: str) -> str:
        """Close a run; returns how it ended, '' when it was refused."""
        was = self.seen.records.get(run.task)
        try:
            accepted = self._send_ending(run, self.world.tasks[run.task].sending, ending)
        except RunUnknownError:
            self.check(was is None, f"{ending} of {run} is unknown, the record was {was}")
            accepted = ""
        if accepted and was and was.state == "r" and was.is_cancelled and not accepted.startswith("commit"):
            self.check(accepted in ("discard", "hand over"), f"{ending} of {run}: {accepted}, the record was {was}")
        elif accepted and ending.startswith("retry") and was and was.state == "r":
            stops = self._row(was, ending) >= LIMIT
            self.check(accepted.startswith("dead") == stops, f"{ending} of {run}: {accepted}, the record was {was}")
        if was and was.state == "r" and was.fence == run.fence:
            self.check(accepted, f"{ending} of {run} was refused, the record was {was}")
        elif was and was.fence > run.fence and not (ending == "discard" and was.outcome == "discarded"):
            self.check(not accepted, f"{ending} of the overtaken {run} was accepted, the record was {was}")
        if accepted:
            self.world.tasks[run.task].hooks_owed = accepted.endswith("hooks")
        self.judge(ending, {run.task}, run)
        return accepted

    @staticmethod
    def _row(was: Seen, ending: str) -> int:
        """Return how many identical failures in a row a retry would make, by the record before it."""
        if ending == "retry, uncounted":
            return 0
        return was.identical + 1 if was.fingerprint == fingerprint_of(ending) else 1

    def _send_ending(self, run: Run, sending: Sending, ending: str) -> str:
        """Return how the run ended, '' when that was refused."""
        hooks = ending.endswith("hooks")
        if ending.startswith("commit"):
            accepted = self.tasks.commit(run.caller, sending, run.fence, hooks=hooks, result=b"42")
        elif ending == "discard":
            accepted = self.tasks.discard(run.caller, sending, run.fence, "skipped")
        elif ending == "hand over":
            accepted = self.tasks.hand_over(run.caller, sending, run.fence, "drain")
        else:
            return self._send_failure(run, sending, ending, hooks)
        return ending if accepted else ""

    def _send_failure(self, run: Run, sending: Sending, ending: str, hooks: bool) -> str:
        retry, counts = ending.startswith("retry"), ending != "retry, uncounted"
        prints = fingerprint_of(ending)
        failure = Failure(
            retry, 5.0, counts, hooks, "ValueError", b"{}", "ValueError", prints, identical_limit=counts * LIMIT
        )
        verdict = self.tasks.fail(run.caller, sending, run.fence, failure)
        self.check(retry or verdict != "retry", f"{ending} of {run} was answered {verdict}")
        return {"dead": "dead+hooks" if hooks else "dead", "retry": "retry", "discarded": "discard"}.get(verdict, "")

    def arrive(self, index: int) -> None:
        """Let a delayed request arrive; nobody hears its reply."""
        self.late.pop(index)()

    def refence(self, process: Process) -> None:
        raise NotImplementedError
