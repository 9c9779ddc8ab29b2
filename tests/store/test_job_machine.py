"""One job key and its tasks under every order of events that Hypothesis can think of, on a real server.

`tests.model.job_keys` searches the rules; this drives the scripts. `RELIER_TEST_HYPOTHESIS=deep` searches longer.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from relier.errors import RunUnknownError
from relier.store import RUNS, Failure, JobTerms, Sending, Verdict
from tests.store.desk import SHARD, Desk
from tests.store.look import inconsistencies, look
from tests.store.runs import pick_from
from tests.store.test_key_machine import FEWER
from tests.store.test_state_machine import DEEP

JOB = "job"
MOST_TASKS = 7

picks = st.integers(0, 999)


@dataclass(eq=False)
class Run:
    worker: str
    task: str
    stamp: int
    fence: int


class OneJob(RuleBasedStateMachine):
    """Tasks of one job, two workers that die and are replaced, a broker whose unacknowledged copies come back."""

    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.client.flushall()
        self.desk = Desk(self.client)
        self.names = itertools.count()
        self.workers = [self.new_worker(), self.new_worker()]
        self.everybody = list(self.workers)
        self.dead: list[str] = []
        self.ranks: dict[str, int] = {}  #: of the tasks whose pushes returned, in their order
        self.unpublished: list[str] = []
        self.copies: list[tuple[str, int]] = []
        self.runs: list[Run] = []
        self.zombies: list[Run] = []
        self.completed: list[str] = []
        self.broken = False

    def new_worker(self) -> str:
        return f"w{next(self.names)}"

    # -- what may happen ----------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.ranks) < MOST_TASKS)
    @rule(delay=st.sampled_from([None, None, 0.0, 60.0]), cancels=st.booleans(), refuses=st.booleans())
    def a_task_is_pushed(self, delay: float | None, cancels: bool, refuses: bool) -> None:
        task = f"t{len(self.ranks)}"
        dead = self.newest_is_dead()
        terms = JobTerms(300.0 if delay is None else delay, delay is None, cancels, refuses)
        custody = self.desk.tasks.push_many([(self.sending(task), terms)])[0]
        self.check(bool(custody.refused_by) == (dead and refuses), f"{custody}, though dead={dead}")
        if not custody.refused_by:
            self.ranks[task] = custody.rank
            if delay is None:
                self.unpublished.append(task)
        self.look()

    @precondition(lambda self: self.unpublished)
    @rule(pick=picks, dies=st.booleans())
    def a_producer_publishes(self, pick: int, dies: bool) -> None:
        task = self.unpublished.pop(pick % len(self.unpublished))
        if not dies:
            self.copies.append((task, 0))

    @precondition(lambda self: self.ranks)
    @rule(pick=picks)
    def a_push_is_repeated(self, pick: int) -> None:
        """Its reply was lost, or a follow-up is replayed."""
        task = pick_from(sorted(self.ranks), pick)
        if self.desk.find(task) is None:
            return
        again = self.desk.tasks.push_many([(self.sending(task), JobTerms(300.0, True))])[0]
        self.check(again.rank in (0, self.ranks[task]) and not again.superseded, f"{task} is pushed again: {again}")
        self.look()

    @precondition(lambda self: self.copies)
    @rule(copy=picks, worker=picks, repeated=st.booleans())
    def a_copy_is_taken(self, copy: int, worker: int, repeated: bool) -> None:
        self.take(self.copies.pop(copy % len(self.copies)), pick_from(self.workers, worker), repeated)

    @precondition(lambda self: self.runs)
    @rule(pick=picks, how=st.sampled_from(["commit", "commit", "retry", "dead", "discard", "hand over"]))
    def a_run_ends(self, pick: int, how: str) -> None:
        self.end(self.runs.pop(pick % len(self.runs)), how)

    @precondition(lambda self: self.zombies)
    @rule(pick=picks, how=st.sampled_from(["commit", "dead", "discard"]))
    def an_old_run_ends(self, pick: int, how: str) -> None:
        self.end(self.zombies.pop(pick % len(self.zombies)), how)

    @rule(pick=picks, lives=st.booleans())
    def a_worker_dies(self, pick: int, lives: bool) -> None:
        """Or is taken for dead, and its runs go on."""
        worker = self.workers.pop(pick % 2)
        self.dead.append(worker)
        self.workers.append(self.new_worker())
        self.everybody.append(self.workers[-1])
        gone = [run for run in self.runs if run.worker == worker]
        self.runs = [run for run in self.runs if run.worker != worker]
        self.zombies += gone if lives else []
        self.copies += [(run.task, run.stamp) for run in gone]

    @precondition(lambda self: self.dead)
    @rule()
    def a_worker_is_buried(self) -> None:
        self.desk.bury(self.dead.pop())
        self.look()

    @rule(seconds=st.sampled_from([0, 1, 61, 301]))
    def sweepers_work(self, seconds: int) -> None:
        self.desk.wait(seconds)
        for due in self.desk.due():
            self.copies.append((due.task_id, due.fence))
            self.desk.tasks.mark_published([due], 30.0, 1800.0)
        self.look()

    @precondition(lambda self: self.ranks)
    @rule(pick=picks, action=st.sampled_from(["cancel", "hold", "release", "release"]))
    def somebody_intervenes(self, pick: int, action: str) -> None:
        task = pick_from(sorted(self.ranks), pick)
        answer = self.desk.tasks.hold(task, action, "somebody", SHARD)[0]
        self.check(
            not (answer == "released" and task != self.newest()), f"{task} is released, {self.newest()} is newer"
        )
        self.look()

    @rule()
    def ids_are_forgotten(self) -> None:
        """Those of superseded tasks: their copies and runs may last longer. R5 keeps the others for as long."""
        for task in self.ranks:
            record = self.desk.find(task)
            if record is not None and record.reason == "superseded":
                self.client.zadd(self.desk.store.keys.shard(SHARD, "")[6], {task: 0})
        self.desk.due()
        self.look()

    # -- steps --------------------------------------------------------------------------------------------------

    def sending(self, task: str) -> Sending:
        return self.desk.sending(task, job=JOB, rank=self.ranks.get(task, 0))

    def newest(self) -> str:
        return next(reversed(self.ranks), "")

    def newest_is_dead(self) -> bool:
        record = self.desk.find(self.newest())
        return record is not None and record.state == "d"

    def take(self, copy: tuple[str, int], worker: str, repeated: bool = False) -> None:
        task, stamp = copy
        nonce, rank = b"n%d" % next(self.names), self.ranks[task] if stamp == 0 else stamp
        claim = self.desk.claim(worker, task, stamp, nonce=nonce, job=JOB, rank=rank)
        if repeated and claim.fence:
            again = self.desk.claim(worker, task, stamp, nonce=nonce, job=JOB, rank=rank)
            self.check((again.fence, again.verdict in RUNS) == (claim.fence, claim.verdict in RUNS), f"{claim} {again}")
        if claim.fence:
            self.check(task == self.newest(), f"{task} begins, {self.newest()} is newer")
            self.check(task not in self.completed, f"{task} begins again though it completed")
            self.runs.append(Run(worker, task, stamp, claim.fence))
        elif claim.verdict is Verdict.FENCED:
            self.copies.append(copy)
        self.look()

    def end(self, run: Run, how: str) -> None:
        try:
            self.close(run, how)
        except RunUnknownError:  # Its copy goes back.
            self.copies.append((run.task, run.stamp))
        self.look()

    def close(self, run: Run, how: str) -> None:
        desk, task, worker = self.desk, run.task, run.worker
        sending = self.sending(task)
        if how == "commit":
            if desk.tasks.commit(worker, sending, run.fence, hooks=False):
                self.check(task == self.newest(), f"{task} completes, {self.newest()} is newer")
                self.completed.append(task)
                desk.settle(run.fence, task, confirmed=False)
        elif how in ("retry", "dead"):
            retry = how == "retry"
            desk.tasks.fail(worker, sending, run.fence, Failure(retry, 5.0, True, False, "ValueError", b"", "no"))
        elif how == "discard":
            desk.tasks.discard(worker, sending, run.fence, "skipped")
        else:
            desk.tasks.hand_over(worker, sending, run.fence, "shutdown")

    # -- what must be so ----------------------------------------------------------------------------------------

    def check(self, holds: object, problem: str) -> None:
        if not holds:
            self.broken = True
            raise AssertionError(problem)

    def look(self) -> None:
        self.check(len(set(self.completed)) == len(self.completed), f"completed twice: {self.completed}")
        seen = look(self.desk.store, [SHARD], self.everybody)
        problems = inconsistencies(seen)
        self.check(not problems, "; ".join(problems))
        there = [task for task, record in seen.records.items() if record.state in "srd"]
        self.check(set(there) <= {self.newest()}, f"{there} have not ended, the newest is {self.newest()}")

    def teardown(self) -> None:
        if not self.broken:
            self.drain()
        self.desk.store.runner.close()

    def drain(self) -> None:
        """Without faults the newest ends, unless it is a dead letter, and by itself."""
        self.unpublished.clear()  # Their producers die.
        for _ in range(8):
            while self.dead:
                self.a_worker_is_buried()
            if (record := self.desk.find(self.newest())) is not None and record.reason == "held":
                self.desk.tasks.hold(self.newest(), "release", "somebody", SHARD)
            self.sweepers_work(301)
            copies, self.copies = self.copies, []
            for copy in copies:
                self.take(copy, self.workers[0])
            for run in self.runs[:]:
                self.runs.remove(run)
                self.end(run, "commit")
        for task in self.ranks:
            self.check(self.has_ended(task), f"{task} never ended: {self.desk.find(task)}")

    def has_ended(self, task: str) -> bool:
        record = self.desk.find(task)
        if record is None:
            return task != self.newest()
        return record.state in "ed" and (task != self.newest() or record.reason != "superseded")


@pytest.mark.timeout(0 if DEEP else 600)
@pytest.mark.parametrize("server", ["embedded"], indirect=True)
def test_whatever_happens_only_the_newest_runs_and_it_is_never_lost(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OneJob, "client", client, raising=False)
    run_state_machine_as_test(OneJob, settings=FEWER)
